"""Training: at which noise levels. A time sampler maps n uniforms u in [0, 1) to (t, weight), t in (0, 1].

The weight is 1 / p(t) for a sampler that draws t with density p only to reduce variance, and 1 for one that
means its density as part of the loss; the caller multiplies it in. How the uniforms are drawn is a choice of
its own: independently (`rng.uniform`), or spread evenly over the batch (`stratified`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.schedules import NoiseSchedule, Table

TimeSampler = Callable[[NoiseSchedule, Tensor], tuple[Tensor, Tensor]]


def uniform(
    schedule: NoiseSchedule, u: Float[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """t = 1 - u: uniform on (0, 1]."""
    t = 1 - u.double()
    return t, torch.ones_like(t)


def grid(
    schedule: NoiseSchedule, u: Float[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """t = i / T, i uniform on 1 .. T (Ho et al. 2020, Algorithm 1)."""
    if not isinstance(schedule, Table):
        raise ValueError(f"time_sampler=grid needs a table of T steps, {schedule} has none; use uniform")
    i = torch.floor(u.double() * schedule.T) + 1
    return i / schedule.T, torch.ones_like(i)


def log_normal(
    schedule: NoiseSchedule, u: Float[Tensor, " n"], *, mean: float = -1.2, std: float = 1.2
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, Table 1). The density is part of the loss."""
    t = schedule.t_of(-2 * (mean + std * torch.special.ndtri(_inside(u))))
    return t, torch.ones_like(t)


def logit_normal(
    schedule: NoiseSchedule, u: Float[Tensor, " n"], *, mean: float = 0.0, std: float = 1.0
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, Eq. 19). The density is part of the loss."""
    t = torch.sigmoid(mean + std * torch.special.ndtri(_inside(u)))
    return t, torch.ones_like(t)


def _inside(u: Float[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Away from 0 and 1, where the normal quantile is infinite: 8 standard deviations."""
    return u.double().clamp(1e-15, 1 - 1e-15)


def stratified(u0: Float[Tensor, "1"], n: int) -> Float64[Tensor, " n"]:
    """u_i = (u_0 + i / n) mod 1: each uniform, together one per n-th of [0, 1) (Kingma et al. 2021)."""
    return (u0.double() + torch.arange(n, dtype=torch.float64, device=u0.device) / n) % 1

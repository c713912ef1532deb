"""Denoising diffusion implicit models (Song et al. 2021a): from deterministic (eta = 0) to DDPM (eta = 1).

    x_s = alpha_s x_0 + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z
    v   = Var[x_s | x_t, x_0] = sigma_s^2 (1 - SNR_t / SNR_s)

Their alpha is our alpha^2, their sigma^2 is our eta^2 v. Holds on every path.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.schedules import NoiseSchedule


def ddim(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """Song et al. 2021a, Eq. 12 and 16. No noise is asked for where none is added."""
    if not 0 <= eta <= 1:
        raise ValueError(f"ddim: eta must lie between 0 (deterministic) and 1 (DDPM), not {eta}")
    for t, s in pairwise(ts):
        x0, eps, _ = denoise(x, t)
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        v = -(sigma_s**2) * torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        x = alpha_s * x0 + torch.sqrt(sigma_s**2 - eta**2 * v) * eps
        if eta > 0 and v > 0:
            x = x + eta * torch.sqrt(v) * noise(x)
        yield Step(s, x, x0)

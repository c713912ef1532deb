"""Sampling: at which times. A grid is t_0 > t_1 > .. > t_n = 0, n steps, float64 on the CPU.

    uniform   t = 1, 1 - 1/n, .. 0
    trailing  the steps k = T - 1, T - 1 - T/n, ..      as t = (k + 1) / T, then 0; without a table: uniform, its limit
    leading   the steps k = .., 2 floor(T/n), floor(T/n), 0   as t = (k + 1) / T, then 0
    log_snr   equal steps in l, then 0
    karras    equal steps in (sigma / alpha)^(1 / rho), then 0

Trailing starts from pure noise, as training ends there; leading does not (Lin et al. 2023, Table 2).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion.schedules import NoiseSchedule, Table

Discretization = Callable[[NoiseSchedule, int], Tensor]


def uniform(schedule: NoiseSchedule, n: int) -> Float64[Tensor, " times"]:
    return torch.arange(n, -1, -1, dtype=torch.float64) / n


def trailing(schedule: NoiseSchedule, n: int) -> Float64[Tensor, " times"]:
    if not isinstance(schedule, Table):
        return uniform(schedule, n)
    T = _table_steps(schedule, n, "trailing")
    return torch.round(torch.arange(n, -1, -1, dtype=torch.float64) * T / n) / T


def leading(schedule: NoiseSchedule, n: int, *, offset: int = 0) -> Float64[Tensor, " times"]:
    """`offset` is added to every k; Stable Diffusion takes 1."""
    T = _table_steps(schedule, n, "leading")
    k = torch.arange(n - 1, -1, -1, dtype=torch.float64) * (T // n) + offset
    if k[0] >= T:
        raise ValueError(
            f"discretization=leading with offset={offset} and {n} steps begins above T - 1 = {T - 1}"
        )
    return _then_zero((k + 1) / T)


def log_snr(
    schedule: NoiseSchedule, n: int, *, log_snr_min: float | None = None, log_snr_max: float | None = None
) -> Float64[Tensor, " times"]:
    """From log_snr_min (noise) to log_snr_max; by default, and at most, the schedule's own ends, which must be
    finite."""
    low, high = _ends(schedule, log_snr_min, log_snr_max)
    return _then_zero(schedule.t_of(torch.linspace(low, high, n, dtype=torch.float64)))


def karras(
    schedule: NoiseSchedule,
    n: int,
    *,
    rho: float = 7.0,
    log_snr_min: float | None = None,
    log_snr_max: float | None = None,
) -> Float64[Tensor, " times"]:
    """Karras et al. 2022, Eq. 5; their sigma is our sigma / alpha = exp(-l / 2)."""
    low, high = _ends(schedule, log_snr_min, log_snr_max)
    sigma_max, sigma_min = math.exp(-low / 2), math.exp(-high / 2)
    sigma = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64) ** rho
    return _then_zero(schedule.t_of(-2 * sigma.log()))


def _then_zero(ts: Float64[Tensor, " n"]) -> Float64[Tensor, " times"]:
    ts = torch.cat([ts, torch.zeros(1, dtype=torch.float64)])
    if not (ts.diff() < 0).all():
        raise ValueError("this grid has steps of length 0: its noise levels are too near to each other, or to the "
                         "schedule's end, to be told apart; give a higher log_snr_min, a lower log_snr_max or fewer "
                         "steps")
    return ts


def _table_steps(schedule: NoiseSchedule, n: int, name: str) -> int:
    if not isinstance(schedule, Table):
        raise ValueError(f"discretization={name} needs a table of T steps, {schedule} has none; use uniform")
    if not 1 <= n <= schedule.T:
        raise ValueError(f"discretization={name} picks from T = {schedule.T} steps, {n} were asked for")
    return schedule.T


def _ends(
    schedule: NoiseSchedule, log_snr_min: float | None, log_snr_max: float | None
) -> tuple[float, float]:
    own_min, own_max = schedule.log_snr_range
    low = own_min if log_snr_min is None else max(log_snr_min, own_min)
    high = own_max if log_snr_max is None else min(log_snr_max, own_max)
    if math.isinf(low) or math.isinf(high):
        raise ValueError(
            f"this grid needs finite ends, {schedule} runs from log-SNR {own_min:g} to {own_max:g}: "
            "give +discretization.log_snr_min=-10 or +discretization.log_snr_max=10"
        )
    if low >= high:
        raise ValueError(f"a grid falls from noise to data: log_snr_min = {low:g} must be below log_snr_max = {high:g}")
    return low, high

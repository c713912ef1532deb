"""Guidance at some noise levels only (Kynkaanniemi et al. 2024)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from diffusion.schedules import NoiseSchedule


def within(interval: Sequence[float]) -> Callable[[NoiseSchedule, Tensor], bool]:
    """Whether the log-SNR at t lies in the interval, ends included. Raises ValueError where that is empty."""
    if len(interval) != 2 or not interval[0] <= interval[1]:
        raise ValueError(f"guidance.interval = {list(interval)}: two log-SNRs are expected, the noisier (lower) one "
                         "first, such as [-3, 5]")
    lowest, highest = interval
    return lambda schedule, t: bool(lowest <= schedule.log_snr(t) <= highest)

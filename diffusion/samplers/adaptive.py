"""The probability-flow ODE with steps of its own choice: Bogacki & Shampine's pair of orders 3 and 2.

    d(x / sigma) / d rho = x_0(x, rho),    rho = alpha / sigma = e^lambda

integrated in lambda, where the steps of a good grid are nearly equal. The error of a picture is measured in the metric
of its noise, and a step is as long as the worst picture of the batch allows: pictures depend on their batch, but by no
more than the tolerance.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.samplers.dpm_solver import half_log_snr
from diffusion.schedules import NoiseSchedule

SAFETY, SHORTEST, LONGEST = 0.9, 0.2, 5.0


def adaptive(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
    *,
    tolerance: float = 1e-3,
    first: float = 0.1,
    most: int = 10_000,
) -> Iterator[Step]:
    """Between the first and the last time of `ts` whose log-SNR is finite; what lies outside is one DDIM step each.

    tolerance  root mean square error of x / sigma a step, relative to 1 + |x / sigma|
    first      the first step's length in lambda
    most       evaluations within the finite part; raises RuntimeError beyond, or where x_0 is not finite
    """
    if not tolerance > 0:
        raise ValueError(f"adaptive: tolerance must be positive, not {tolerance}")
    times = list(ts)
    if half_log_snr(schedule, times[0]).isinf():
        x0, eps, _ = denoise(x, times[0])
        x = schedule.alpha(times[1]) * x0 + schedule.sigma(times[1]) * eps
        yield Step(times[1], x, x0)
        del times[0]
    finite = [t for t in times if half_log_snr(schedule, t).isfinite()]
    if not finite:
        return
    lowest, end = half_log_snr(schedule, finite[0]), half_log_snr(schedule, finite[-1])

    def slope(y: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """dy / dlambda = e^lambda x_0, and x_0, at y = x / sigma."""
        t = schedule.t_of(2 * lam)
        x0 = denoise(schedule.sigma(t) * y, t).x0
        return torch.exp(lam) * x0, x0

    lam, h, evaluations = lowest, torch.as_tensor(first, dtype=torch.float64), 0
    y, k1 = x / schedule.sigma(finite[0]), None
    while lam < end:
        h = torch.minimum(h, end - lam)
        if k1 is None:
            k1, x0 = slope(y, lam)
        k2, _ = slope(y + h / 2 * k1, lam + h / 2)
        k3, _ = slope(y + 3 * h / 4 * k2, lam + 3 * h / 4)
        new = y + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4, x0_new = slope(new, lam + h)
        error = h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8)
        scale = tolerance * (1 + torch.maximum(y.abs(), new.abs()))
        worst = (error / scale).square().flatten(1).mean(1).sqrt().max().item()
        if not math.isfinite(worst):
            raise RuntimeError(f"adaptive: x_0 is not finite at log-SNR {2 * lam:.2f}, or next to it")
        evaluations += 3
        if evaluations > most:
            raise RuntimeError(f"adaptive: no end after {most} evaluations (log-SNR {2 * lam:.2f} of {2 * end:.2f}): "
                               "take a larger tolerance")
        if worst <= 1:
            lam, y, k1, seen, x0 = lam + h, new, k4, x0, x0_new
            t = finite[-1] if lam >= end else schedule.t_of(2 * lam)
            yield Step(t, schedule.sigma(t) * y, seen)
        factor = SAFETY * worst ** (-1 / 3) if worst > 0 else LONGEST
        h = h * min(max(factor, SHORTEST), LONGEST)
    if times[-1] < finite[-1]:
        x0, eps, _ = denoise(schedule.sigma(finite[-1]) * y, finite[-1])
        t = times[-1]
        yield Step(t, schedule.alpha(t) * x0 + schedule.sigma(t) * eps, x0)

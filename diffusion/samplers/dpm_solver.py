"""DPM-Solver++ (Lu et al. 2022b): exponential integrators of the ODE, and of an SDE, in half the log-SNR.

    x_s = sigma_s / sigma_t x_t + sigma_s int_{lambda_t}^{lambda_s} e^lambda x_0(lambda) dlambda,    lambda = l / 2

The linear part is exact; x_0 is extrapolated by a polynomial in lambda through what was seen before. Steps that start
without signal (lambda = -inf) or end in data (+inf) are of first order: there x_0 is taken as it is.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.schedules import NoiseSchedule


def dpmpp_2s(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Single-step, order 2, two evaluations a step: Algorithm 1, with the midpoint r = 1/2."""
    for t, s in pairwise(ts):
        x0 = denoise(x, t).x0
        x = _single_step(denoise, schedule, x, t, s, x0)
        yield Step(s, x, x0)


def dpmpp_2m(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Multi-step, order 2, one evaluation a step: Algorithm 2."""
    before = None
    for t, s in pairwise(ts):
        x0, h = denoise(x, t).x0, half_log_snr(schedule, s) - half_log_snr(schedule, t)
        at = x0
        if before is not None and h.isfinite():
            earlier, h_before = before
            at = x0 + h / (2 * h_before) * (x0 - earlier)
        x = _linear(schedule, x, t, s) - schedule.alpha(s) * torch.expm1(-h) * at
        before = x0, h
        yield Step(s, x, x0)


def dpmpp_3m(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Multi-step, order 3, one evaluation a step and one more for the first step, which is `dpmpp_2s`: a first step of
    order 1 would leave order 2 for the whole. The published code weighs the second derivative by half, which is of
    order 2."""
    seen: list[tuple[Tensor, Tensor]] = []  # (lambda, x_0), the latest first
    for t, s in pairwise(ts):
        x0, now, then = denoise(x, t).x0, half_log_snr(schedule, t), half_log_snr(schedule, s)
        seen = [(now, x0), *(pair for pair in seen[:2] if pair[0].isfinite())]
        h = then - now
        if not h.isfinite() or len(seen) == 1:
            x = _single_step(denoise, schedule, x, t, s, x0)
        else:
            e = torch.expm1(-h)
            first, second = _derivatives(seen)
            taylor = -e * x0 + (e + h) * first - (e + h - h**2 / 2) * second  # int_0^h e^(u - h) x_0(u) du
            x = _linear(schedule, x, t, s) + schedule.alpha(s) * taylor
        yield Step(s, x, x0)


def sde_dpmpp_2m(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """The reverse SDE, multi-step, order 2 in its drift: SDE-DPM-Solver++(2M). Without history it is DDPM."""
    before = None
    for t, s in pairwise(ts):
        x0, h = denoise(x, t).x0, half_log_snr(schedule, s) - half_log_snr(schedule, t)
        at = x0
        if before is not None and h.isfinite():
            earlier, h_before = before
            at = x0 + h / (2 * h_before) * (x0 - earlier)
        fresh = -torch.expm1(-2 * h)
        x = _linear(schedule, x, t, s) * torch.exp(-h) + schedule.alpha(s) * fresh * at
        if schedule.sigma(s) > 0:
            x = x + schedule.sigma(s) * torch.sqrt(fresh) * noise(x)
        before = x0, h
        yield Step(s, x, x0)


def half_log_snr(schedule: NoiseSchedule, t: Float64[Tensor, ""]) -> Float64[Tensor, ""]:
    """lambda = log(alpha / sigma)."""
    return schedule.log_snr(t) / 2


def _linear(schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return schedule.sigma(s) / schedule.sigma(t) * x


def _single_step(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
    """With x_0 at the middle of the step in lambda; with x_0 at t where the step is infinitely long."""
    now, then = half_log_snr(schedule, t), half_log_snr(schedule, s)
    h = then - now
    if h.isfinite():
        middle = schedule.t_of(now + then)  # log-SNR, twice the mean of the lambdas
        half = half_log_snr(schedule, middle) - now
        u = _linear(schedule, x, t, middle) - schedule.alpha(middle) * torch.expm1(-half) * x0
        x0 = x0 + h / (2 * half) * (denoise(u, middle).x0 - x0)
    return _linear(schedule, x, t, s) - schedule.alpha(s) * torch.expm1(-h) * x0


def _derivatives(seen: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """First and second derivative of x_0 in lambda at the latest point, of the polynomial through all of them."""
    (l0, x0), (l1, x1), *rest = seen
    slope = (x0 - x1) / (l0 - l1)
    if not rest:
        return slope, torch.zeros_like(slope)
    l2, x2 = rest[0]
    curvature = (slope - (x1 - x2) / (l1 - l2)) / (l0 - l2)
    return slope + curvature * (l0 - l1), 2 * curvature

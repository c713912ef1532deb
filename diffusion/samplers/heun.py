"""Heun's method on the probability-flow ODE, plain or with churn (Karras et al. 2022, Algorithms 1 and 2).

    d(x / alpha) / ds = eps(x, s),    s = sigma / alpha

In these coordinates every path is theirs, and Euler's method is DDIM. The second evaluation is left out on the step to
s = 0, and where s > 1000, a start without signal: there a straight line in s says nothing of the way (the cosine table
begins at s = 20,000 and would come out of the first of 20 steps many times too large).
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.schedules import NoiseSchedule


def heun(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Order 2, two evaluations a step: Algorithm 1."""
    for t, s in pairwise(ts):
        x0, eps, _ = denoise(x, t)
        x = heun_step(denoise, schedule, x, t, s, x0, eps)
        yield Step(s, x, x0)


def edm(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
    *,
    churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Heun's method that first adds fresh noise, up to sqrt(2) times the level a step: Algorithm 2.

    churn         S_churn: the added noise is shared out over the steps; 0 is `heun`
    s_min, s_max  sigma / alpha between which noise is added
    s_noise       factor of the added noise; above 1 (1.003 to 1.007 in the paper) it makes up for lost detail
    """
    if churn < 0 or s_noise < 0:
        raise ValueError(f"edm: churn and s_noise must not be negative, got {churn} and {s_noise}")
    gamma = min(churn / (len(ts) - 1), math.sqrt(2) - 1)
    highest = schedule.sigma(1.0) / schedule.alpha(1.0)
    for t, s in pairwise(ts):
        now = _ratio(schedule, t)
        if gamma > 0 and s_min <= now <= s_max:
            more = torch.minimum(now * (1 + gamma), highest)
            noisier = schedule.t_of(-2 * more.log())
            if noisier > t:
                added = s_noise * torch.sqrt(more**2 - now**2) * noise(x)
                x, t = schedule.alpha(noisier) * (x / schedule.alpha(t) + added), noisier
        x0, eps, _ = denoise(x, t)
        x = heun_step(denoise, schedule, x, t, s, x0, eps)
        yield Step(s, x, x0)


def heun_step(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, x0: Tensor, eps: Tensor
              ) -> Tensor:
    """From t to s, where x0 and eps are what is seen at t."""
    euler = schedule.alpha(s) * x0 + schedule.sigma(s) * eps
    if no_signal(schedule, t) or schedule.sigma(s) == 0:
        return euler
    length = _ratio(schedule, s) - _ratio(schedule, t)
    return schedule.alpha(s) * (x / schedule.alpha(t) + length * (eps + denoise(euler, s).eps) / 2)


def no_signal(schedule: NoiseSchedule, t: Tensor) -> bool:
    """sigma / alpha > 1000."""
    return bool(schedule.alpha(t) < 1e-3 * schedule.sigma(t))


def _ratio(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """s = sigma / alpha."""
    return torch.exp(-schedule.log_snr(t) / 2)

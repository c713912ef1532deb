"""Ancestral sampling (Ho et al. 2020, Algorithm 2): draw x_s from q(x_s | x_t, x_0) at the estimated x_0.

    mean   alpha_s (1 - r) x_0  +  alpha_t sigma_s^2 / (alpha_s sigma_t^2) x_t,        r = SNR_t / SNR_s
    ddpm        variance  sigma_s^2 (1 - r)   beta-tilde: right where the data is a single point
    ddpm_large  variance  sigma_t^2 (1 - r)   beta: right where the data is N(0, 1)

This is their Eq. 6 and 7 for steps of any length, on every path. The last step adds no noise.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.schedules import NoiseSchedule


def ddpm(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Ancestral sampling with the variance of the posterior: DDIM at eta = 1."""
    return _ancestral(denoise, schedule, x, ts, noise, lambda sigma_t, sigma_s, r: sigma_s**2 * (1 - r))


def ddpm_large(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Ancestral sampling with the variance of the forward step, Var[x_t | x_s]."""
    return _ancestral(denoise, schedule, x, ts, noise, lambda sigma_t, sigma_s, r: sigma_t**2 * (1 - r))


def _ancestral(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise,
    variance: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Iterator[Step]:
    for t, s in pairwise(ts):
        x0 = denoise(x, t).x0
        alpha_t, sigma_t = schedule.alpha(t), schedule.sigma(t)
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        r = torch.exp(schedule.log_snr(t) - schedule.log_snr(s))
        x = alpha_s * (1 - r) * x0 + alpha_t * sigma_s**2 / (alpha_s * sigma_t**2) * x
        if sigma_s > 0:
            x = x + torch.sqrt(variance(sigma_t, sigma_s, r)) * noise(x)
        yield Step(s, x, x0)

"""Ancestral sampling (Ho et al. 2020, Algorithm 2): draw x_s from q(x_s | x_t, x_0) at the estimated x_0.

    mean   alpha_s (1 - r) x_0  +  alpha_t sigma_s^2 / (alpha_s sigma_t^2) x_t,        r = SNR_t / SNR_s
    ddpm          variance  sigma_s^2 (1 - r)   beta-tilde: right where the data is a single point
    ddpm_large    variance  sigma_t^2 (1 - r)   beta: right where the data is N(0, 1)
    ddpm_learned  variance  sigma_s^(2 - 2f) sigma_t^2f (1 - r)   in between; the network tells f

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
    return _ancestral(denoise, schedule, x, ts, noise, lambda sigma_t, sigma_s, f: sigma_s)


def ddpm_large(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Ancestral sampling with the variance of the forward step, Var[x_t | x_s]."""
    return _ancestral(denoise, schedule, x, ts, noise, lambda sigma_t, sigma_s, f: sigma_t)


def ddpm_learned(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Ancestral sampling with the learned variance (Nichol & Dhariwal 2021, Eq. 15). ValueError where there is none."""

    def std(sigma_t, sigma_s, f):
        if f is None:
            raise ValueError("sampler=ddpm_learned needs a model that tells its variance: train with objective=hybrid")
        return sigma_s * (f * (sigma_t / sigma_s).log()).exp()

    return _ancestral(denoise, schedule, x, ts, noise, std)


def _ancestral(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise,
    std: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Iterator[Step]:
    """std(sigma_t, sigma_s, f): of the noise, over sqrt(1 - r)."""
    for t, s in pairwise(ts):
        x0, _, f = denoise(x, t)
        alpha_t, sigma_t = schedule.alpha(t), schedule.sigma(t)
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        r = torch.exp(schedule.log_snr(t) - schedule.log_snr(s))
        x = alpha_s * (1 - r) * x0 + alpha_t * sigma_s**2 / (alpha_s * sigma_t**2) * x
        if sigma_s > 0:
            x = x + torch.sqrt(1 - r) * std(sigma_t, sigma_s, f) * noise(x)
        yield Step(s, x, x0)

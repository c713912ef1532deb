"""The variational bound (Kingma et al. 2021, Section 3.5), three terms in nats per sample:

    -log p(x_0) <=  KL(q(x_1 | x_0) || p(x_1))                        `prior`
                  + 1/2 int_low^high e^l E||x_0 - x_0'(x_l)||^2 dl    `continuous`, or its sum over T steps, `discrete`
                  + E[-log p(x_0 | x_high)]                           `reconstruction`, or pixels.levels

The middle term depends on a schedule through the ends alone (their Section 5.1): any two agree between equal ends. The
last is the noise's own answer, p(x_0 | x_high) proportional to q(x_high | x_0), over the line or over 256 levels. Times
and noise are arguments: each row is an unbiased draw.
"""

import math

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from diffusion.estimate import Denoise
from diffusion.schedules import NoiseSchedule


def prior(schedule: NoiseSchedule, x0: Float[Tensor, "b *d"], low: float) -> Float[Tensor, " b"]:
    """KL(N(alpha x_0, sigma^2) || p), p what samplers start from: N(0, 1) on vp, N(0, sigma^2) elsewhere."""
    t = schedule.t_of(low)
    alpha, sigma = schedule.alpha(t).item(), schedule.sigma(t).item()
    std = schedule.prior(t, torch.ones(1, dtype=torch.float64)).item()
    kl = ((alpha * x0 / std) ** 2 + (sigma / std) ** 2 - 1) / 2 - math.log(sigma / std)
    return reduce(kl, "b ... -> b", "sum")


def continuous(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "b *d"],
    u: Float[Tensor, " b"],
    eps: Float[Tensor, "b *d"],
    low: float,
    high: float,
) -> Float[Tensor, " b"]:
    """Infinitely many steps (their Section 5): l = low + (high - low) u, u uniform on [0, 1)."""
    return (high - low) / 2 * _error(denoise, schedule, x0, low + (high - low) * u.double(), eps)


def discrete(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "b *d"],
    u: Float[Tensor, " b"],
    eps: Float[Tensor, "b *d"],
    low: float,
    high: float,
    *,
    steps: int,
) -> Float[Tensor, " b"]:
    """T equal steps in l (their Section 4): T / 2 E_i (e^(l_s) - e^(l_t)) ||x_0 - x_0'(x_t)||^2, i = floor(T u)."""
    h = (high - low) / steps
    log_snr = low + h * (steps * u.double()).floor()
    return steps / 2 * math.expm1(h) * _error(denoise, schedule, x0, log_snr, eps)


def reconstruction(x0: Float[Tensor, "b *d"], high: float) -> Float[Tensor, " b"]:
    """-log N(x_0; x_high / alpha, e^-high), its mean over the noise: the same for every x_0."""
    dimensions = x0[0].numel()
    return x0.new_full((len(x0),), dimensions * (math.log(2 * math.pi) + 1 - high) / 2)


def _error(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "b *d"],
    log_snr: Float[Tensor, " b"],
    eps: Float[Tensor, "b *d"],
) -> Float[Tensor, " b"]:
    """e^l ||x_0 - x_0'||^2."""
    t = schedule.t_of(log_snr)
    error = x0 - denoise(schedule.diffuse(x0, t, eps), t).x0
    return log_snr.exp().to(x0) * reduce(error.square(), "b ... -> b", "sum")

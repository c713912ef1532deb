"""The hybrid loss, which learns the variance of ancestral sampling too (Nichol & Dhariwal 2021, Section 3.1).

    L = L_simple + weight T L_t,    L_t = KL(q(x_s | x_t, x_0) || p(x_s | x_t)),    s = t - 1/T

The second half of the network's channels is f: p's variance lies between beta-tilde (f = 0) and beta (f = 1) on a
logarithmic scale (their Eq. 15). With R = sigma_t^2 / sigma_s^2 all else cancels, on every path:

    L_t = 1/2 (f ln R + R^-f (1 + (SNR_s - SNR_t) (x_0 - x_0')^2) - 1)        nats per dimension

x_0' takes no gradient from L_t. Terms that end at the data, s < 1/(2T), are left out: the last step of sampling adds no
noise.
"""

import dataclasses
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.objectives.diffusion import squared_error
from diffusion.schedules import NoiseSchedule, per_sample
from diffusion.weightings import Weighting


@dataclasses.dataclass(frozen=True)
class Hybrid:
    """With the paper's T = 1000, L_t counts as much as L_simple. T is that of the schedule's table, or 1000."""

    weight: float = 0.001
    outputs: ClassVar[int] = 2  # channels of the network per channel of x

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "b *d"],
        t: Float[Tensor, " b"],
        eps: Float[Tensor, "b *d"],
        cond: Conditioning | None = None,
        weighting: Weighting | None = None,
    ) -> Float[Tensor, " b"]:
        """Per sample, the mean over the data axes."""
        x_t, T = denoiser.schedule.diffuse(x0, t, eps), getattr(denoiser.schedule, "T", 1000)
        prediction = denoiser.predict(x_t, t, cond)
        simple = squared_error(denoiser, prediction, x0, t, eps, weighting)
        estimate = denoiser.estimate(prediction, x_t, t)
        bound = variance_bound(denoiser.schedule, (x0 - estimate.x0.detach()).square(), estimate.f, t, T)
        return simple + self.weight * T * bound


def variance_bound(
    schedule: NoiseSchedule,
    error: Float[Tensor, "b *d"],
    f: Float[Tensor, "b *d"],
    t: Float[Tensor, " b"],
    T: int,
) -> Float[Tensor, " b"]:
    """L_t of the squared error (x_0 - x_0')^2 and f."""
    s = torch.where(t - 1 / T > 1 / (2 * T), t - 1 / T, t)  # s = t: R = 1 and equal SNRs, so L_t = 0
    log_R = per_sample(2 * (schedule.sigma(t).log() - schedule.sigma(s).log()), f)
    information = per_sample(schedule.snr(s) - schedule.snr(t), f)
    bound = (f * log_R + torch.exp(-f * log_R) * (1 + information * error) - 1) / 2
    return reduce(bound, "b ... -> b", "mean")

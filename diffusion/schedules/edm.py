"""Variance-exploding noise in the form of EDM (Karras et al. 2022, Table 1): x_t = x_0 + sigma eps.

    alpha_t = 1,    sigma_t = sigma_max t

sigma_min belongs to the sampler's grid (`discretization=karras`), the training density to the time sampler.
"""

import dataclasses
import math

import torch

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import ve


@dataclasses.dataclass(frozen=True)
class EDM(NoiseSchedule):
    """sigma_max is in units of the data: pixels in [-1, 1], latents of variance 1."""

    sigma_max: float = 80.0

    path = ve

    def __post_init__(self):
        if not self.sigma_max > 0:
            raise ValueError(f"{self}: sigma_max must be positive")

    def log_snr(self, t):
        return -2 * (math.log(self.sigma_max) + torch.log(torch.as_tensor(t, dtype=torch.float64)))

    def t_of(self, log_snr):
        sigma = torch.exp(-torch.as_tensor(log_snr, dtype=torch.float64) / 2)
        return (sigma / self.sigma_max).clamp(max=1)

    def rates(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

"""The Laplace schedule (Hang et al. 2024, Table 1): uniform times give log-SNRs of a Laplace density around `mean`.

    l(t) = mean - b log(2 t)  for t < 1/2,    l(t) = mean + b log(2 (1 - t))  for t > 1/2
"""

import dataclasses

import torch

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import vp


@dataclasses.dataclass(frozen=True)
class Laplace(NoiseSchedule):
    """Most of training goes to the middle noise levels. Both ends are infinite."""

    mean: float = 0.0
    b: float = 0.5

    path = vp

    def __post_init__(self):
        if not self.b > 0:
            raise ValueError(f"{self}: b must be positive")

    def log_snr(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        side = torch.where(t < 0.5, -torch.log(2 * t), torch.log(2 * (1 - t)))
        return self.mean + self.b * side

    def t_of(self, log_snr):
        side = (torch.as_tensor(log_snr, dtype=torch.float64) - self.mean) / self.b
        tail = torch.exp(-side.abs()) / 2
        return torch.where(side > 0, tail, 1 - tail)

"""Schedules that no config has, for the corners of the laws: every path, and an SNR of 0 at t = 1."""

import dataclasses
import math

import torch

from diffusion.schedules import NoiseSchedule, Path
from diffusion.schedules.path import vp


@dataclasses.dataclass(frozen=True)
class Line(NoiseSchedule):
    """Log-SNR falls in a straight line: a schedule on any path, with any ends."""

    path: Path
    high: float = 12.0
    low: float = -12.0

    def log_snr(self, t):
        return self.high + (self.low - self.high) * torch.as_tensor(t, dtype=torch.float64)

    def t_of(self, log_snr):
        return (torch.as_tensor(log_snr, dtype=torch.float64) - self.high) / (self.low - self.high)


@dataclasses.dataclass(frozen=True)
class ZeroTerminal(NoiseSchedule):
    """alpha = cos(pi t / 2): the SNR reaches 0."""

    path: Path = vp

    def log_snr(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return torch.where(t == 1, -math.inf, -2 * torch.log(torch.tan(t * math.pi / 2)))

    def t_of(self, log_snr):
        return torch.atan(torch.exp(-torch.as_tensor(log_snr, dtype=torch.float64) / 2)) * 2 / math.pi

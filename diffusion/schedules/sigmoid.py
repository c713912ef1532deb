"""The sigmoid schedule (Jabri et al. 2022; Chen 2023, Section 2.1): alpha_t^2 falls along a piece of a logistic curve.

    alpha_t^2 = (s(end) - s(z)) / (s(end) - s(start)),   z = start + t (end - start),   s(z) = 1 / (1 + exp(-z / tau))

The log-SNR has a closed form without differences, because
s(b) - s(a) = sinh((b - a) / 2 tau) / (2 cosh(a / 2 tau) cosh(b / 2 tau)).
"""

import dataclasses
import math

import torch

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import vp


@dataclasses.dataclass(frozen=True)
class Sigmoid(NoiseSchedule):
    """A lower tau spends more time at the ends. The SNR reaches 0 at t = 1 (Chen clips alpha^2 at 1e-9)."""

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    path = vp

    def __post_init__(self):
        if not (self.start < self.end and self.tau > 0):
            raise ValueError(f"{self}: start < end and tau > 0 are needed")

    def log_snr(self, t):
        t, reach = torch.as_tensor(t, dtype=torch.float64), (self.end - self.start) / (2 * self.tau)
        return torch.log(torch.sinh((1 - t) * reach)) - torch.log(torch.sinh(t * reach)) - self._tilt

    def t_of(self, log_snr):
        reach = (self.end - self.start) / (2 * self.tau)
        ratio = torch.exp(torch.as_tensor(log_snr, dtype=torch.float64) + self._tilt)  # sinh((1 - t) r) / sinh(t r)
        return (torch.atanh(math.sinh(reach) / (ratio + math.cosh(reach))) / reach).clamp(max=1)

    @property
    def _tilt(self) -> float:
        """0 for ends that lie evenly around 0."""
        return math.log(math.cosh(self.end / (2 * self.tau)) / math.cosh(self.start / (2 * self.tau)))

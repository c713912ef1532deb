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
        t, reach = torch.as_tensor(t, dtype=torch.float64), self._reach
        # log sinh(x) = x + log(1 - exp(-2 x)) - log 2
        left, right = torch.expm1(-2 * (1 - t) * reach), torch.expm1(-2 * t * reach)
        return (1 - 2 * t) * reach + torch.log(-left) - torch.log(-right) - self._tilt

    def t_of(self, log_snr):
        """exp(2 t reach) = (R + exp(reach)) / (R + exp(-reach)),   R = sinh((1 - t) reach) / sinh(t reach)."""
        log_ratio = (torch.as_tensor(log_snr, dtype=torch.float64) + self._tilt).clamp(min=-1e3 - self._reach)
        zero = torch.zeros_like(log_ratio)
        above, below = (torch.logaddexp(end - log_ratio, zero) for end in (self._reach, -self._reach))
        return ((above - below) / (2 * self._reach)).clamp(max=1)

    @property
    def _reach(self) -> float:
        return (self.end - self.start) / (2 * self.tau)

    @property
    def _tilt(self) -> float:
        """0 for ends that lie evenly around 0."""
        return _log_cosh(self.end / (2 * self.tau)) - _log_cosh(self.start / (2 * self.tau))


def _log_cosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)

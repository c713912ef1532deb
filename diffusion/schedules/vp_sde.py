"""The variance-preserving SDE with a linear beta(t) (Song et al. 2021b, Eq. 32-33): DDPM's table without a table.

    log alpha_t^2 = - int_0^t beta = -(beta_min t + (beta_max - beta_min) t^2 / 2)
"""

import dataclasses

import torch
import torch.nn.functional as F

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import vp


@dataclasses.dataclass(frozen=True)
class ContinuousVP(NoiseSchedule):
    """The limit T -> inf of `Linear` with beta_i = beta(i / T) / T."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    path = vp

    def __post_init__(self):
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"{self}: 0 < beta_min < beta_max is needed")

    def log_snr(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        log_alpha_bar = -t * (self.beta_min + (self.beta_max - self.beta_min) * t / 2)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def t_of(self, log_snr):
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64).clamp(min=float(self.log_snr(1.0)))
        log_alpha_bar = F.logsigmoid(log_snr)
        root = torch.sqrt(self.beta_min**2 - 2 * (self.beta_max - self.beta_min) * log_alpha_bar)
        return (-2 * log_alpha_bar / (self.beta_min + root)).clamp(max=1)

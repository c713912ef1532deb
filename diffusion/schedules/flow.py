"""The interpolants of flow matching: from data to noise along a straight line, or along a quarter of a circle.

    RectifiedFlow   alpha = 1 - t          sigma = t               (Liu et al. 2023; Lipman et al. 2023 with t -> 1 - t)
    CosineFlow      alpha = cos(pi t / 2)  sigma = sin(pi t / 2)   (Albergo & Vanden-Eijnden 2023, Eq. 5)

Their SNR reaches 0 at t = 1, so they take neither eps nor edm.
"""

import dataclasses
import math

import torch

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import linear, vp


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """alpha + sigma = 1."""

    path = linear

    def log_snr(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return 2 * (torch.log1p(-t) - torch.log(t))

    def t_of(self, log_snr):
        return torch.sigmoid(-torch.as_tensor(log_snr, dtype=torch.float64) / 2)

    def rates(self, t):
        one = torch.ones_like(torch.as_tensor(t, dtype=torch.float64))
        return -one, one


@dataclasses.dataclass(frozen=True)
class CosineFlow(NoiseSchedule):
    """alpha^2 + sigma^2 = 1; the velocity is pi / 2 times v. The cosine table of improved DDPM is nearly this curve."""

    path = vp

    def log_snr(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return 2 * (torch.log(torch.sin((1 - t) * math.pi / 2)) - torch.log(torch.sin(t * math.pi / 2)))

    def t_of(self, log_snr):
        return torch.atan(torch.exp(-torch.as_tensor(log_snr, dtype=torch.float64) / 2)) * (2 / math.pi)

    def rates(self, t):
        angle = torch.as_tensor(t, dtype=torch.float64) * math.pi / 2
        return -math.pi / 2 * torch.sin(angle), math.pi / 2 * torch.cos(angle)

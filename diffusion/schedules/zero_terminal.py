"""A table rescaled so that its last step is pure noise (Lin et al. 2023, Algorithm 1).

    alpha_i <- (alpha_i - alpha_T) alpha_1 / (alpha_1 - alpha_T)     alpha_1 stays, alpha_T becomes 0

Over the last interval alpha is interpolated, not log alpha-bar, which has no end there.
"""

import dataclasses
import functools

import torch
import torch.nn.functional as F

from diffusion.schedules.table import Table


@dataclasses.dataclass(frozen=True)
class ZeroTerminal(Table):
    """Not for eps or edm: at SNR 0, eps is x_t and tells nothing."""

    base: Table

    def __post_init__(self):
        if not isinstance(self.base, Table) or self.base.alpha(1.0) == 0:
            raise ValueError(f"schedule: ZeroTerminal rescales a table whose last alpha is above 0, not {self.base}")

    @property
    def T(self) -> int:
        return self.base.T

    def betas(self):
        return 1 - torch.diff(self.log_alpha_bar).exp()

    @functools.cached_property
    def log_alpha_bar(self):
        alpha = (self.base.log_alpha_bar / 2).exp()
        rescaled = (alpha[1:] - alpha[-1]) * (alpha[1] / (alpha[1] - alpha[-1]))
        return torch.cat([self.base.log_alpha_bar[:1], 2 * rescaled.log()])

    def log_snr(self, t):
        position = torch.as_tensor(t, dtype=torch.float64) * self.T
        table, last = self.log_alpha_bar.to(position.device), self.T - 1
        i = position.long().clamp(0, last - 1)
        inside = torch.lerp(table[i], table[i + 1], (position - i).clamp(max=1))
        log_alpha_bar = torch.where(position <= last, inside, table[last] + 2 * torch.log(self.T - position))
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def t_of(self, log_snr):
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        log_alpha_bar, last = F.logsigmoid(log_snr), self.log_alpha_bar[self.T - 1].to(log_snr.device)
        inside = super().t_of(torch.maximum(log_snr, self.log_snr((self.T - 1) / self.T).to(log_snr.device)))
        return torch.where(log_alpha_bar >= last, inside, 1 - torch.exp((log_alpha_bar - last) / 2) / self.T)

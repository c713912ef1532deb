"""A schedule with its log-SNR moved by a constant: larger pictures need more noise to hide the same content.

    l(t) = l_base(t) + shift

For pictures of d x d pixels: shift = 2 log(64 / d) with a base made for 64 x 64 (Hoogeboom et al. 2023, Eq. 5). On
rectified flow, shift = -2 log(s) is Stable Diffusion 3's t -> s t / (1 + (s - 1) t) (Esser et al. 2024, Eq. 23).
"""

import dataclasses
import math

import torch

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import Path, ve


@dataclasses.dataclass(frozen=True)
class Shifted(NoiseSchedule):
    """A noise level keeps the label that the base gives it. Beyond the base's last one labels go on as they ended."""

    base: NoiseSchedule
    shift: float

    def __post_init__(self):
        if not math.isfinite(self.shift):
            raise ValueError(f"schedule.shift must be a finite number, not {self.shift}")

    @property
    def path(self) -> Path:
        return self.base.path

    def log_snr(self, t):
        return self.base.log_snr(t) + self.shift

    def t_of(self, log_snr):
        return self.base.t_of(torch.as_tensor(log_snr, dtype=torch.float64) - self.shift)

    def label(self, t):
        log_snr, (end, _) = self.log_snr(t), self.base.log_snr_range
        label = self.base.label(self.base.t_of(log_snr))
        if math.isinf(end):
            return label
        last = 1 - 1e-3
        slope = (self.base.label(1.0) - self.base.label(last)) / (self.base.log_snr(last) - end)
        return label + slope * (end - log_snr).clamp(min=0)

    def rates(self, t):
        """The base's at its own time u of the same log-SNR, times u' = l_base'(t) / l_base'(u)."""
        if self.base.rates(t) is None:
            return None
        if self.path is ve:  # alpha stays 1, sigma is scaled
            return self.base.rates(t)[0], self.base.rates(t)[1] * math.exp(-self.shift / 2)
        t = torch.as_tensor(t, dtype=torch.float64)
        u = self.base.t_of(self.log_snr(t))
        of_t, of_u = self.base.rates(t), self.base.rates(u)
        alpha_t, sigma_t, alpha_u, sigma_u = (f(x) for x in (t, u) for f in (self.base.alpha, self.base.sigma))
        # alpha_u sigma_u / (alpha_t sigma_t), by the factor that is not 0 / 0 at this end
        ratio = torch.where(alpha_t > sigma_t, (alpha_u / alpha_t) ** 2 * math.exp(-self.shift / 2),
                            (sigma_u / sigma_t) ** 2 * math.exp(self.shift / 2))
        turn_t, turn_u = (a * sigma - alpha * s for (a, s), alpha, sigma in
                          ((of_t, alpha_t, sigma_t), (of_u, alpha_u, sigma_u)))
        speed = turn_t / turn_u * ratio
        return of_u[0] * speed, of_u[1] * speed

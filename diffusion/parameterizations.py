"""What the network predicts: one number for the data and one for the noise.

    y = a_t x_0 + b_t eps        eps: (0, 1)    x0: (1, 0)    v: (-sigma, alpha)    velocity: (alpha', sigma')

    straight: (-1, 1)

    edm: (sigma / sigma_data, -alpha sigma_data) / sqrt(sigma^2 + alpha^2 sigma_data^2)

With x_t = alpha x_0 + sigma eps these are two equations for two unknowns; Cramer's rule solves all cases:

    x_0 = (b x_t - sigma y) / (alpha b - sigma a)        eps = (alpha y - a x_t) / (alpha b - sigma a)
"""

import abc
import dataclasses

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.schedules import NoiseSchedule, per_sample


@dataclasses.dataclass(frozen=True)
class Parameterization(abc.ABC):
    """A subclass writes `row`. `sigma_data` is the standard deviation of x_0, for unbounded paths."""

    sigma_data: float = 1.0

    @abc.abstractmethod
    def row(
        self, schedule: NoiseSchedule, t: Float[Tensor, "*t"]
    ) -> tuple[Float64[Tensor, "*t"], Float64[Tensor, "*t"]]:
        """a_t, b_t."""

    def refusal(self, schedule: NoiseSchedule) -> str | None:
        """Why the pair makes no sense; None where it does."""
        return None

    def check(self, schedule: NoiseSchedule) -> None:
        """Raise ValueError where the pair makes no sense."""
        reason = self.refusal(schedule)
        if reason is not None:
            raise ValueError(reason)

    def label(self, schedule: NoiseSchedule, t: Float[Tensor, "*t"]) -> Float64[Tensor, "*t"]:
        """What the network is told about t."""
        return schedule.label(t)

    def input_scale(self, schedule: NoiseSchedule, t: Float[Tensor, "*t"]) -> Float64[Tensor, "*t"]:
        """1 where the path is bounded, else 1 / std(x_t) (Karras et al. 2022, Eq. 7: c_in)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        if schedule.path.bounded:
            return torch.ones_like(sigma)
        return (alpha**2 * self.sigma_data**2 + sigma**2).rsqrt()

    def target(
        self,
        x0: Float[Tensor, "b *d"],
        eps: Float[Tensor, "b *d"],
        schedule: NoiseSchedule,
        t: Float[Tensor, "*t"],
    ) -> Float[Tensor, "b *d"]:
        """y = a x_0 + b eps."""
        a, b = self.row(schedule, t)
        return per_sample(a, x0) * x0 + per_sample(b, x0) * eps

    def to_x0(
        self,
        y: Float[Tensor, "b *d"],
        x_t: Float[Tensor, "b *d"],
        schedule: NoiseSchedule,
        t: Float[Tensor, "*t"],
    ) -> Float[Tensor, "b *d"]:
        """(b x_t - sigma y) / (alpha b - sigma a), and x_t / alpha where sigma = 0."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        a, b = self.row(schedule, t)
        det = alpha * b - sigma * a
        of_x_t = torch.where(sigma == 0, 1 / alpha, b / det)
        of_y = torch.where(sigma == 0, 0.0, -sigma / det)
        return per_sample(of_x_t, x_t) * x_t + per_sample(of_y, y) * y

    def to_eps(
        self,
        y: Float[Tensor, "b *d"],
        x_t: Float[Tensor, "b *d"],
        schedule: NoiseSchedule,
        t: Float[Tensor, "*t"],
    ) -> Float[Tensor, "b *d"]:
        """(alpha y - a x_t) / (alpha b - sigma a): eps-prediction gives y back. 0 where y does not tell."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        a, b = self.row(schedule, t)
        det = alpha * b - sigma * a
        of_y = torch.where(det == 0, 0.0, alpha / det)
        of_x_t = torch.where(det == 0, 0.0, -a / det)
        return per_sample(of_y, y) * y + per_sample(of_x_t, x_t) * x_t

    def x0_factor(self, schedule: NoiseSchedule, t: Float[Tensor, "*t"]) -> Float64[Tensor, "*t"]:
        """||y' - y||^2 = x0_factor ||x_0' - x_0||^2 at equal x_t: ((alpha b - sigma a) / sigma)^2.

        On vp this is SNR for eps and SNR + 1 for v; on every path 1 for x0 and (sqrt(SNR) + 1)^2 for straight.
        """
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        a, b = self.row(schedule, t)
        return ((alpha * b - sigma * a) / sigma) ** 2


class Epsilon(Parameterization):
    """y = eps (Ho et al. 2020)."""

    def row(self, schedule, t):
        one = torch.ones_like(schedule.log_snr(t))
        return 0 * one, one

    def refusal(self, schedule):
        if schedule.snr(1.0) > 0:
            return None
        return (f"parameterization=eps cannot be used with {schedule}: its SNR is 0 at t = 1, where eps is x_t and "
                "tells nothing of x_0 (Lin et al. 2023, Section 3.2); choose v or x0")


class X0(Parameterization):
    """y = x_0."""

    def row(self, schedule, t):
        one = torch.ones_like(schedule.log_snr(t))
        return one, 0 * one


class V(Parameterization):
    """y = v = alpha eps - sigma x_0 (Salimans & Ho 2022)."""

    def row(self, schedule, t):
        return -schedule.sigma(t), schedule.alpha(t)


class Velocity(Parameterization):
    """y = u = dx_t / dt = alpha' x_0 + sigma' eps (Lipman et al. 2023, with t running from data to noise)."""

    def row(self, schedule, t):
        return schedule.rates(t)

    def refusal(self, schedule):
        if schedule.rates(0.5) is not None:
            return None
        return (f"parameterization=velocity needs finite rates alpha' and sigma', {schedule} gives none (near the data "
                "sigma rises too fast); choose straight or v, or a schedule such as rectified_flow or cosine_flow")


class Straight(Parameterization):
    """y = eps - x_0. Every path is rectified flow's, scaled: x_t / (alpha + sigma) = (1 - s) x_0 + s eps with
    s = sigma / (alpha + sigma), and y is the velocity along that straight line, whatever the schedule."""

    def row(self, schedule, t):
        one = torch.ones_like(schedule.log_snr(t))
        return -one, one


class EDM(Parameterization):
    """The network F of x_0 = c_skip x + c_out F(c_in x, c_noise) at x = x_t / alpha, s = sigma / alpha
    (Karras et al. 2022, Eq. 7 and Table 1). Their loss weight is 1 on F: weighting=none.

    c_skip = sigma_data^2 / (s^2 + sigma_data^2)    c_out = s sigma_data / sqrt(s^2 + sigma_data^2)
    """

    def row(self, schedule, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        size = torch.sqrt(sigma**2 + alpha**2 * self.sigma_data**2)
        return sigma / (self.sigma_data * size), -alpha * self.sigma_data / size

    def input_scale(self, schedule, t):
        """c_in / alpha, on every path."""
        return (schedule.alpha(t) ** 2 * self.sigma_data**2 + schedule.sigma(t) ** 2).rsqrt()

    def label(self, schedule, t):
        """c_noise = ln(s) / 4."""
        return -schedule.log_snr(t) / 8

    def refusal(self, schedule):
        if schedule.snr(1.0) > 0:
            return None
        return (f"parameterization=edm cannot be used with {schedule}: its SNR is 0 at t = 1, and the network is told "
                "the logarithm of the SNR; choose v or x0")

"""A noise schedule: a falling log-SNR curve and a path.

    q(x_t | x_0) = N(alpha_t x_0, sigma_t^2),    l(t) = log(alpha_t^2 / sigma_t^2),    t: 0 data, 1 noise

A plain object, invisible to state_dict and untouched by .half(). All its numbers are float64 and live where t
does (the CPU, by custom); they take the dtype and device of the data where they meet it, in `per_sample`.
"""

import abc

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.schedules.path import Path, vp


def per_sample(coefficient: Float[Tensor, "*t"], x: Float[Tensor, "b *d"]) -> Float[Tensor, "..."]:
    """One number, or one per row, ready to multiply x."""
    if coefficient.ndim == 0:
        return coefficient  # takes x's dtype and device in the product, without a copy to an accelerator
    rows = coefficient.to(x.dtype).to(x.device, non_blocking=x.is_cuda)
    return rows.reshape(-1, *[1] * (x.ndim - 1))


class NoiseSchedule(abc.ABC):
    """A subclass writes `log_snr` and its inverse and names its path; everything else follows."""

    path: Path

    @abc.abstractmethod
    def log_snr(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """l(t) (Kingma et al. 2021): falls in t; +inf at t = 0, -inf allowed at t = 1."""

    @abc.abstractmethod
    def t_of(self, log_snr: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """The inverse of log_snr; the nearer end for a value that the curve does not take."""

    def snr(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        return self.log_snr(t).exp()

    def alpha(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """The factor of the data; DDPM's sqrt(alpha-bar)."""
        return self.path.alpha(self.log_snr(t))

    def sigma(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """The factor of the noise."""
        return self.path.sigma(self.log_snr(t))

    def rates(
        self, t: Float[Tensor, "*t"] | float
    ) -> tuple[Float64[Tensor, "*t"], Float64[Tensor, "*t"]] | None:
        """alpha', sigma' in closed form; None where sigma' is unbounded near the data."""
        return None

    def label(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """What a network is told about t, unless the parameterization knows better."""
        return 1000 * torch.as_tensor(t, dtype=torch.float64)

    def diffuse(
        self, x0: Float[Tensor, "b *d"], t: Float[Tensor, "*t"], eps: Float[Tensor, "b *d"]
    ) -> Float[Tensor, "b *d"]:
        """x_t = alpha_t x_0 + sigma_t eps."""
        return per_sample(self.alpha(t), x0) * x0 + per_sample(self.sigma(t), x0) * eps

    def prior(self, t: Float[Tensor, ""], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        """Where sampling starts at its first time t: eps on vp, sigma_t eps elsewhere."""
        return eps if self.path is vp else per_sample(self.sigma(t), eps) * eps

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """l at the noise, l at the data."""
        return float(self.log_snr(1.0)), float(self.log_snr(0.0))

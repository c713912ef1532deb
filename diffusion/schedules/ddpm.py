"""The three classical tables: Linear (DDPM), ScaledLinear (Stable Diffusion) and Cosine (improved DDPM).

    Linear        beta_i         from beta_start to beta_end in equal steps
    ScaledLinear  sqrt(beta_i)   from sqrt(beta_start) to sqrt(beta_end) in equal steps
    Cosine        alpha-bar(t) = f(t) / f(0),    f(t) = cos^2((t + s) / (1 + s) pi / 2)

Names differ in the field. latent-diffusion's "linear" is diffusers' "scaled_linear" and ours, its "sqrt_linear" is
"linear" there and here; Cosine is diffusers' "squaredcos_cap_v2".
"""

import dataclasses
import math

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion.schedules.table import Table


@dataclasses.dataclass(frozen=True)
class Linear(Table):
    """Ho et al. 2020, Section 4."""

    T: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def betas(self) -> Float64[Tensor, " T"]:
        return torch.linspace(self.beta_start, self.beta_end, self.T, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class ScaledLinear(Table):
    """Rombach et al. 2022, as Stable Diffusion was trained."""

    T: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def betas(self) -> Float64[Tensor, " T"]:
        return torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.T, dtype=torch.float64).square()


@dataclasses.dataclass(frozen=True)
class Cosine(Table):
    """Nichol & Dhariwal 2021, Eq. 17; beta <= 0.999 keeps alpha-bar_T above 0."""

    T: int = 1000
    s: float = 0.008
    beta_max: float = 0.999

    def betas(self) -> Float64[Tensor, " T"]:
        t = torch.arange(self.T + 1, dtype=torch.float64) / self.T
        f = torch.cos((t + self.s) / (1 + self.s) * math.pi / 2).square()
        return (1 - f[1:] / f[:-1]).clamp(max=self.beta_max)

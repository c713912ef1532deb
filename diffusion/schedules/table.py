"""Schedules that papers give as a table of steps i = 1 .. T with noise beta_i, made continuous.

    alpha-bar_i = prod_{j <= i} (1 - beta_j),  alpha^2 = alpha-bar, sigma^2 = 1 - alpha-bar  (Ho et al. 2020)

The table is hit exactly at t = i / T; log alpha-bar is linear between these points, and 0 at t = 0.
"""

import abc
import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.schedules.base import NoiseSchedule
from diffusion.schedules.path import vp


class Table(NoiseSchedule):
    """A subclass writes `betas`; the papers' alpha_i is 1 - beta_i, ours is sqrt(alpha-bar)."""

    path = vp
    T: int

    def __post_init__(self):
        betas = self.betas()
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"{self}: every beta must lie between 0 and 1, found {betas.min():g} to {betas.max():g}"
            )

    @abc.abstractmethod
    def betas(self) -> Float64[Tensor, " T"]:
        """beta_1 .. beta_T."""

    @functools.cached_property
    def log_alpha_bar(self) -> Float64[Tensor, " points"]:
        """At t = 0, 1/T, .. 1."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas()).cumsum(0)])

    def log_snr(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        position = torch.as_tensor(t, dtype=torch.float64) * self.T
        table = self.log_alpha_bar.to(position.device)
        i = position.long().clamp(0, self.T - 1)
        log_alpha_bar = torch.lerp(table[i], table[i + 1], position - i)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))  # log(alpha-bar / (1 - alpha-bar))

    def t_of(self, log_snr: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        log_alpha_bar = F.logsigmoid(torch.as_tensor(log_snr, dtype=torch.float64))
        table = self.log_alpha_bar.to(log_alpha_bar.device)
        i = torch.searchsorted(-table, -log_alpha_bar, right=True).sub(1).clamp(0, self.T - 1)
        return ((i + (log_alpha_bar - table[i]) / (table[i + 1] - table[i])) / self.T).clamp(0, 1)

    def label(self, t: Float[Tensor, "*t"] | float) -> Float64[Tensor, "*t"]:
        """The index that published models count from 0: T t - 1, and 0 below the table's first point."""
        return (self.T * torch.as_tensor(t, dtype=torch.float64) - 1).clamp(min=0)

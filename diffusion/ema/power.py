"""Averages over all of training, the later the more: power functions (Karras et al. 2024, Section 3.1).

    theta_gamma(t) = integral_0^t p(tau) theta(tau) dtau,    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)
    theta_gamma(t) = beta_t theta_gamma(t - 1) + (1 - beta_t) theta(t),    beta_t = (1 - 1/t)^(gamma + 1)

Time counts updates. The recursion is the integral itself where weights stand still between updates: theta(k) has the
weight (k^(gamma + 1) - (k - 1)^(gamma + 1)) / t^(gamma + 1), and the initial weights have none.

A width is named by the profile's standard deviation over t,

    sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))),

which falls from 12^(-1/2) at gamma = 0, where all of training counts alike, to 0. Below gamma = 0 the oldest weights
would count most: no width is taken from there.
"""

import contextlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion.ema.average import Average

WIDEST = 12**-0.5


def sigma_rel_of(gamma: float) -> float:
    """Relative standard deviation of the profile."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(sigma_rel: float) -> float:
    """The inverse of sigma_rel_of. Raises ValueError outside (0, 12^(-1/2)].

    With s = sigma_rel^-2 and gamma = y - 7/3 it is y^3 - p y + q = 0, p = s + 1/3, q = 4 s / 3 + 2 / 27; of the three
    real roots the largest (Viete).
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(f"sigma_rel = {sigma_rel}: the width of a power-function average lies above 0 (the last "
                         f"weights alone) and at most at {math.floor(1e4 * WIDEST) / 1e4} (all of training alike)")
    p, q = sigma_rel**-2 + 1 / 3, 4 / 3 * sigma_rel**-2 + 2 / 27
    return 2 * math.sqrt(p / 3) * math.cos(math.acos(-1.5 * q / p * math.sqrt(3 / p)) / 3) - 7 / 3


class PowerAverage(Average):
    """One width."""

    def __init__(self, module: nn.Module, sigma_rel: float):
        super().__init__(module)
        self.gamma = gamma_of(sigma_rel)

    def beta(self, t: int) -> float:
        return (1 - 1 / t) ** (self.gamma + 1)


class PowerEMA:
    """Several widths at once. The first stands for the model; snapshots of all give others after training.

    snapshot_every  updates between two snapshots
    """

    def __init__(self, module: nn.Module, sigma_rels: Sequence[float] = (0.05, 0.10), snapshot_every: int = 100):
        if not sigma_rels or snapshot_every < 1:
            raise ValueError(f"sigma_rels = {list(sigma_rels)} and snapshot_every = {snapshot_every}: at least one "
                             "width, and at least one update between two snapshots")
        self.averages = {float(width): PowerAverage(module, width) for width in sigma_rels}
        self.shown = self.averages[float(sigma_rels[0])]
        self.snapshot_every = snapshot_every
        self.facts = {"sigma_rel": float(sigma_rels[0])}

    @property
    def shadows(self) -> dict[str, Tensor]:
        return self.shown.shadows

    def update(self) -> None:
        """Once after every step of the optimizer."""
        for average in self.averages.values():  # the shown one first: it refuses while it is swapped in
            average.update()

    def swapped(self, module: nn.Module) -> contextlib.AbstractContextManager[nn.Module]:
        """The first width in place of the parameters."""
        return self.shown.swapped(module)

    def to(self, device: str | torch.device) -> "PowerEMA":
        for average in self.averages.values():
            average.to(device)
        return self

    def state_dict(self) -> dict:
        return {width: average.state_dict() for width, average in self.averages.items()}

    def load_state_dict(self, state: dict) -> None:
        for width, average in self.averages.items():
            average.load_state_dict(state[width])

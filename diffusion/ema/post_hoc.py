"""Any width after training: the combination of stored averages whose profile is nearest to the wanted one
(Karras et al. 2024, Section 3.2 and Appendix C).

    min_c || p - sum_i c_i p_i ||^2    =>    sum_j <p_i, p_j> c_j = <p_i, p>,    theta = sum_i c_i theta_i

Averages are linear in the weights, so profiles are all that matters. With p on [0, s] and q on [0, t], s <= t, of the
exponents g and h:

    <p, q> = integral_0^s p q = (g + 1)(h + 1) / (g + h + 1)  s^h / t^(h + 1)
    |p|    = (g + 1) / sqrt((2 g + 1) s)
    <p, q> / (|p| |q|) = sqrt((2 g + 1)(2 h + 1)) / (g + h + 1)  (s / t)^(h + 1/2)

The system is solved in these cosines: no power overflows, and its diagonal is 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor


class Profile(NamedTuple):
    """p(tau) = (gamma + 1) tau^gamma / step^(gamma + 1) on [0, step]."""

    step: int
    gamma: float


def cosines(rows: Sequence[Profile], columns: Sequence[Profile]) -> Float64[Tensor, "m n"]:
    """<p, q> / (|p| |q|), each p with each q."""
    s, g = (x[:, None] for x in _steps_and_gammas(rows))
    t, h = _steps_and_gammas(columns)
    ratio, later = torch.minimum(s, t) / torch.maximum(s, t), torch.where(s > t, g, h)
    return ((2 * g + 1) * (2 * h + 1)).sqrt() / (g + h + 1) * ratio ** (later + 0.5)


def norms(profiles: Sequence[Profile]) -> Float64[Tensor, " n"]:
    """|p|."""
    t, gamma = _steps_and_gammas(profiles)
    return (gamma + 1) / ((2 * gamma + 1) * t).sqrt()


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[Float64[Tensor, " n"], float]:
    """The best c, and what it leaves: |p - sum_i c_i p_i| / |p|. The stored profiles are distinct."""
    target = cosines(stored, [wanted])[:, 0]
    c = torch.linalg.solve(cosines(stored, stored), target)
    error = (1 - target @ c).clamp(min=0).sqrt().item()
    return c * norms([wanted]) / norms(stored), error


def _steps_and_gammas(profiles: Sequence[Profile]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    return tuple(torch.tensor(profiles, dtype=torch.float64).T)

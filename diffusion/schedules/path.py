"""A path splits l = log(alpha^2 / sigma^2) into alpha and sigma: the ratio is given, the path sets the size.

    vp      alpha^2 + sigma^2 = 1   alpha = sqrt(sigmoid(l)),  sigma = sqrt(sigmoid(-l))      Ho et al. 2020
    ve      alpha = 1               sigma = exp(-l / 2)                                       Song et al. 2021
    linear  alpha + sigma = 1       alpha = sigmoid(l / 2),    sigma = sigmoid(-l / 2)        Liu et al. 2023

Exact at l = +inf (alpha = 1, sigma = 0) and, for vp and linear, at l = -inf (alpha = 0, sigma = 1).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Path:
    """`bounded`: x_t is never larger than data and noise are, so that a network may see it as it is."""

    name: str
    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    bounded: bool

    def __repr__(self) -> str:
        return self.name


vp = Path(
    "vp",
    alpha=lambda log_snr: log_snr.sigmoid().sqrt(),
    sigma=lambda log_snr: (-log_snr).sigmoid().sqrt(),
    bounded=True,
)
ve = Path(
    "ve",
    alpha=torch.ones_like,
    sigma=lambda log_snr: (-log_snr / 2).exp(),
    bounded=False,
)
linear = Path(
    "linear",
    alpha=lambda log_snr: (log_snr / 2).sigmoid(),
    sigma=lambda log_snr: (-log_snr / 2).sigmoid(),
    bounded=True,
)

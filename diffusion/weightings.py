"""w(l): how much an error of x_0 counts at log-SNR l. The loss is

    w(l) ||x_0' - x_0||^2  =  w(l) / x0_factor(l) ||y' - y||^2,

whatever the network predicts, so one formula is right for every parameterization. No weighting at all is the
paper's own loss, 1 on y: w = x0_factor (L_simple for eps: w = SNR).
"""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]


def none() -> None:
    """The paper's own loss, ||y' - y||^2."""


def min_snr(log_snr: Float[Tensor, "*t"], *, gamma: float = 5.0) -> Float[Tensor, "*t"]:
    """min(SNR, gamma) (Hang et al. 2023)."""
    return log_snr.exp().clamp(max=gamma)


def soft_min_snr(log_snr: Float[Tensor, "*t"], *, gamma: float = 4.0) -> Float[Tensor, "*t"]:
    """SNR gamma / (SNR + gamma): min_snr without its corner (Crowson et al. 2024, Section 3.4)."""
    return gamma * (log_snr - math.log(gamma)).sigmoid()


def p2(log_snr: Float[Tensor, "*t"], *, k: float = 1.0, gamma: float = 1.0) -> Float[Tensor, "*t"]:
    """SNR / (k + SNR)^gamma: less for the nearly clean (Choi et al. 2022, Eq. 8, on the loss of eps)."""
    return log_snr.exp() / (k + log_snr.exp()) ** gamma


def truncated_snr(log_snr: Float[Tensor, "*t"]) -> Float[Tensor, "*t"]:
    """max(SNR, 1) (Salimans & Ho 2022, Section 4)."""
    return log_snr.exp().clamp(min=1)


def sigmoid(log_snr: Float[Tensor, "*t"], *, bias: float = 2.0) -> Float[Tensor, "*t"]:
    """SNR sigmoid(bias - l): on the loss of eps a sigmoid that falls with l (Kingma & Gao 2023, Section 5.3). Theirs is
    times -dl/dt too: equal where l falls evenly in t."""
    return math.exp(bias) * (log_snr - bias).sigmoid()

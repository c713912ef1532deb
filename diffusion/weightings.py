"""w(l): how much an error of x_0 counts at log-SNR l. The loss is

    w(l) ||x_0' - x_0||^2  =  w(l) / x0_factor(l) ||y' - y||^2,

whatever the network predicts, so one formula is right for every parameterization. No weighting at all is the
paper's own loss, 1 on y: w = x0_factor (L_simple for eps: w = SNR).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]


def none() -> None:
    """The paper's own loss, ||y' - y||^2."""


def min_snr(log_snr: Float[Tensor, "*t"], *, gamma: float = 5.0) -> Float[Tensor, "*t"]:
    """min(SNR, gamma) (Hang et al. 2023)."""
    return log_snr.exp().clamp(max=gamma)

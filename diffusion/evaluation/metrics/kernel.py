"""The kernel distance, KID (Binkowski et al. 2018): the squared discrepancy in the kernel k(x, y) = (x . y / d + 1)^3.

Theirs is the mean over subsets of 1000 pictures; over all pairs the mean is the same and its noise smaller.
"""

from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.evaluation.metrics.discrepancy import squared_discrepancy
from diffusion.evaluation.metrics.intervals import GROUPS, Interval


def polynomial(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], count: int = GROUPS,
                    paired: bool = False) -> Interval:
    """Unbiased."""
    return squared_discrepancy(x, y, polynomial, count, paired)

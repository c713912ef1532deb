"""CMMD (Jayasumana et al. 2024): the squared discrepancy of CLIP embeddings of length 1 in a Gaussian kernel,

    1000 MMD^2,   k(x, y) = exp(-|x - y|^2 / (2 sigma^2)),   sigma = 10

Published numbers are on CLIP ViT-L/14 at 336 pixels. The authors' program keeps the pairs of a picture with itself,
which adds about 1000 (1 - mean k) (1/n + 1/m); their paper's estimator, and this one, is unbiased.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.evaluation.metrics.discrepancy import squared_discrepancy
from diffusion.evaluation.metrics.intervals import GROUPS, Interval

SIGMA, SCALE = 10.0, 1000.0


def gaussian(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return torch.exp((x @ y.T - x.square().sum(1)[:, None] / 2 - y.square().sum(1) / 2) / SIGMA**2)


def cmmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], count: int = GROUPS,
         paired: bool = False) -> Interval:
    """Of embeddings x against y, rows of length 1, with a 95 % interval from `count` groups; paired: row i of both is
    one picture."""
    found = squared_discrepancy(x, y, gaussian, count, paired)
    return Interval(SCALE * found.value, SCALE * found.low, SCALE * found.high)

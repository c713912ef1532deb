"""Fidelity and diversity by nearest neighbours. A picture's ball reaches its k-th neighbour in its own set.

    precision   share of samples that lie in a real picture's ball         (Kynkaanniemi et al. 2019; k = 3)
    recall      share of real pictures that lie in a sample's ball
    density     number of real pictures' balls that a sample lies in, over k, in the mean
    coverage    share of real pictures in whose ball a sample lies         (Naeem et al. 2020, both; k = 5)

All depend on the numbers of pictures. The intervals are for other samples against the same reference, given which
samples are counted independently. Recall and coverage have none: samples enter them through their balls or together.
"""

import dataclasses

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.data.pictures import chunks
from diffusion.evaluation.metrics.intervals import Interval, of_mean, of_share

K_DENSITY = 5
ROWS = 1000  # of a matrix of distances at a time


@dataclasses.dataclass(frozen=True)
class Overlap:
    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def neighbours(samples: Float[Tensor, "n d"], real: Float[Tensor, "m e"], k: int = 3,
               k_density: int = K_DENSITY) -> Overlap:
    """k_density is that of density and coverage. O((n + m)^2 d) operations. Raises ValueError where a set has no
    k-th neighbour."""
    if samples.shape[1] != real.shape[1]:
        raise ValueError(f"features of {samples.shape[1]} and {real.shape[1]} dimensions cannot be compared")
    samples, real = samples.double(), real.double()
    reach, own, wide = radii(real, k), radii(samples, k), radii(real, k_density)
    precise, dense = torch.zeros(2, len(samples), dtype=torch.int64)
    recalled, covered = [], []
    for rows in chunks(torch.arange(len(real)), ROWS):
        distance = torch.cdist(real[rows], samples)
        precise += (distance <= reach[rows, None]).sum(0)
        recalled.append((distance <= own).any(1))
        inside = distance <= wide[rows, None]
        dense += inside.sum(0)
        covered.append(inside.any(1))
    return Overlap(of_share(precise > 0), Interval(torch.cat(recalled).double().mean().item()),
                   of_mean(dense.double() / k_density), Interval(torch.cat(covered).double().mean().item()))


def radii(x: Float64[Tensor, "n d"], k: int) -> Float64[Tensor, " n"]:
    """The distance of each vector to its k-th neighbour among the others."""
    if not 1 <= k < len(x):
        raise ValueError(f"k = {k}: among {len(x)} pictures there are neighbours 1 to {len(x) - 1}")
    return torch.cat([torch.cdist(part, x).kthvalue(k + 1).values for part in chunks(x, ROWS)])  # itself is the first

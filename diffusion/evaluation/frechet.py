"""The Frechet distance of two sets of features, taken as Gaussians (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6):

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^(1/2) S_2 S_1^(1/2))^(1/2))

All in float64. The trace of the root comes from the eigenvalues of a symmetric matrix, which a rank-deficient
covariance (fewer pictures than dimensions) leaves real and non-negative up to rounding.
"""

import dataclasses

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of n feature vectors."""

    n: int
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]


def moments_of(features: Float[Tensor, "n d"]) -> Moments:
    """Unbiased. Raises ValueError for fewer than two vectors."""
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 pictures, there are {len(features)}")
    features = features.double()
    return Moments(len(features), features.mean(0), torch.cov(features.T).reshape(2 * [features.shape[1]]))


def frechet_distance(a: Moments, b: Moments) -> float:
    """d^2, as FID reports it."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared")
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(distance.item(), 0.0)

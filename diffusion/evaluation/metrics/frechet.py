"""The Frechet distance of two sets of features, taken as Gaussians (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6):

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^(1/2) S_2 S_1^(1/2))^(1/2))

All in float64. The trace of the root comes from the eigenvalues of a symmetric matrix, which a rank-deficient
covariance (fewer pictures than dimensions) leaves real and non-negative up to rounding.

Of two samples of one distribution it is not 0 but of the order d^2 (1/n_1 + 1/n_2), so numbers of different n do not
compare.
"""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.evaluation.metrics.intervals import GROUPS, Interval, groups, jackknife, of_squared_distance


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


def moments_without(whole: Moments, rows: Float[Tensor, "m d"]) -> Moments:
    """Those of the vectors that remain when `rows` are taken out: n_1 + n_2 = n, and the scatters S (n - 1) obey
    scatter = scatter_1 + scatter_2 + n_1 n_2 / n |mu_1 - mu_2|^2."""
    rows = rows.double()
    m, mean, centred = len(rows), rows.mean(0), rows - rows.mean(0)
    n = whole.n - m
    if n < 2:
        raise ValueError(f"a covariance needs at least 2 pictures, {m} of {whole.n} taken out leave {n}")
    rest = (whole.n * whole.mean - m * mean) / n
    scatter = (whole.n - 1) * whole.covariance - centred.T @ centred - n * m / whole.n * torch.outer(
        rest - mean, rest - mean)
    return Moments(n, rest, scatter / (n - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """d^2, as FID reports it."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared")
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(distance.item(), 0.0)


@dataclasses.dataclass(frozen=True)
class Frechet:
    """One distance, estimated in two ways.

    at_n       the plug-in distance of the two samples; the interval is for its mean over samples of these sizes
    infinite   the distance of the two distributions: at_n followed along a straight line in 1/n to infinity (Chong &
               Forsyth 2020), for both samples at once where they leave the reference's bias in
    """

    at_n: Interval
    infinite: Interval


def frechet_intervals(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"], count: int = GROUPS) -> Frechet:
    """By the jackknife over `count` groups, each a share of both samples. The line holds where n is several times d."""
    whole_a, whole_b = moments_of(a), moments_of(b)

    def without() -> Iterator[float]:
        for rows_a, rows_b in zip(groups(len(a), count), groups(len(b), count), strict=True):
            yield frechet_distance(moments_without(whole_a, a[rows_a]), moments_without(whole_b, b[rows_b]))

    value = frechet_distance(whole_a, whole_b)
    bias, variance = jackknife(value, list(without()))
    infinite = of_squared_distance(value, bias, variance, count)
    return Frechet(Interval(value, infinite.low + bias, infinite.high + bias), infinite)

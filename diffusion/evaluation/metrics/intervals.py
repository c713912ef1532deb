"""95 % intervals.

Of a mean of independent values they are Student's, of a share Wilson's. Other statistics are computed again without
one of G random groups at a time (the grouped jackknife, Quenouille 1956, Tukey 1958), which estimates

    bias  b = (G - 1) (mean_g T_-g - T)            variance  V = (G - 1) / G sum_g (T_-g - mean_g T_-g)^2

T - b is the straight line in 1/n through the sizes n - n/G and n, followed to n = infinity.

A squared distance of two samples needs one thought more. It is quadratic in its arguments, so its noise grows with the
distance: near theta = 0 what is left of its variance is that of the squared noise, of which V counts twice. With
T = theta + b in the mean and kappa = V / T,

    Var[T - b] = kappa (theta + b / 2)

is V far away and half of V at 0. As Wilson's is for a share, the interval is all theta with

    (T - b - s - theta)^2 <= t^2 kappa (theta + b / 2),     s = kappa (z^2 - 1) / 6

where s is the skewness' part (Cornish & Fisher 1938), T being nearly kappa / 4 times a chi-square near 0.
experiments/interval_coverage measures how often it holds the true value.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffusion import rng

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
GROUPS = 20


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval, None where it has none. An unbiased estimate of a small distance may be negative,
    as may its ends."""

    value: float
    low: float | None = None
    high: float | None = None


def groups(n: int, count: int = GROUPS) -> list[Int64[Tensor, " m"]]:
    """The rows 0..n in `count` random groups whose sizes differ by at most 1: always the same ones, so that
    rows sorted by class do no harm and pairs, row i of two sets, stay together. Raises ValueError where there are fewer
    rows than groups."""
    if not 2 <= count <= n:
        raise ValueError(f"{n} pictures cannot be split in {count} groups: an interval needs at least 2 groups and a "
                         "picture in each")
    return list(torch.randperm(n, generator=rng.generator(0, n, "groups")).tensor_split(count))


def jackknife(value: float, without: Sequence[float]) -> tuple[float, float]:
    """Bias and variance of `value`, from its values without each of the groups."""
    left, count = torch.tensor(without, dtype=torch.float64), len(without)
    bias = (count - 1) * (left.mean().item() - value)
    return bias, (count - 1) / count * (left - left.mean()).square().sum().item()


def of_squared_distance(value: float, bias: float, variance: float, count: int) -> Interval:
    """Around value - bias; `value` is the biased plug-in estimate, `variance` the jackknife's of it, by `count`
    groups."""
    kappa = variance / value if value > 0 else 0.0
    spread, start = student(count - 1) ** 2 * kappa, value - bias - kappa * (Z**2 - 1) / 6
    half = (max(spread * (start + bias / 2), 0.0) + spread**2 / 4) ** 0.5
    return Interval(value - bias, start + spread / 2 - half, start + spread / 2 + half)


def of_mean(values: Float[Tensor, " n"]) -> Interval:
    """Of independent values."""
    if len(values) < 2:
        raise ValueError(f"the interval of a mean needs at least 2 values, there are {len(values)}")
    mean, error = values.double().mean().item(), (values.double().std() / len(values) ** 0.5).item()
    return Interval(mean, mean - student(len(values) - 1) * error, mean + student(len(values) - 1) * error)


def of_share(hits: Bool[Tensor, " n"]) -> Interval:
    """Of independent hits and misses."""
    return wilson(hits.double().mean().item(), len(hits))


def wilson(share: float, n: float) -> Interval:
    """Of a share of n: all p with |share - p| <= Z sqrt(p (1 - p) / n) (Wilson 1927)."""
    centre, half = share + Z**2 / (2 * n), Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    low, high = (centre - half) / (1 + Z**2 / n), (centre + half) / (1 + Z**2 / n)
    return Interval(share, low if share > 0 else 0.0, high if share < 1 else 1.0)


def student(freedom: int) -> float:
    """The t distribution's 97.5 % quantile, by its expansion in 1/freedom (Abramowitz & Stegun 26.7.5): 1 % low at 2
    degrees of freedom, right to 1e-4 from 8 on."""
    terms = (Z, (Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96, (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
             (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160)
    return sum(term / freedom**k for k, term in enumerate(terms))

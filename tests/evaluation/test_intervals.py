"""What 95 % means: intervals against their definitions, and on Gaussians whose distance is known."""

import math

import pytest
import torch

from diffusion.evaluation.metrics.frechet import frechet_intervals
from diffusion.evaluation.metrics.intervals import (
    Interval,
    groups,
    jackknife,
    of_mean,
    of_share,
    of_squared_distance,
    student,
)


def test_groups_hold_each_row_once_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    rows = groups(103, 10)
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(103))
    assert {len(some) for some in rows} == {10, 11}
    assert all(torch.equal(a, b) for a, b in zip(rows, groups(103, 10)))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="16 pictures cannot be split in 20 groups"):
        groups(16)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(20, dtype=torch.float64)
    bias, variance = jackknife(x.mean().item(), [(x.sum() - value).item() / 19 for value in x])
    assert bias == pytest.approx(0, abs=1e-12) and variance == pytest.approx(x.var().item() / 20)


def test_the_jackknife_takes_the_bias_from_a_squared_mean():
    x = torch.randn(20, dtype=torch.float64)
    square = x.mean().square().item()
    bias, _ = jackknife(square, [((x.sum() - value) / 19).square().item() for value in x])
    assert square - bias == pytest.approx(((x.sum().square() - x.square().sum()) / (20 * 19)).item())


def test_students_quantiles():
    stats = pytest.importorskip("scipy.stats")
    for freedom, error in ((2, 0.01), (5, 5e-4), (8, 1e-4), (19, 1e-6), (1000, 1e-6)):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=error)


def test_a_mean_and_a_share():
    stats = pytest.importorskip("scipy.stats")
    x = torch.randn(40, dtype=torch.float64)
    low, high = stats.t.interval(0.95, 39, x.mean().item(), x.std().item() / 40**0.5)
    assert (of_mean(x).low, of_mean(x).high) == (pytest.approx(low, rel=1e-5), pytest.approx(high, rel=1e-5))
    for hits in (0, 3, 17, 20):
        found = of_share(torch.arange(20) < hits)
        wilson = stats.binomtest(hits, 20).proportion_ci(method="wilson")
        assert (found.low, found.high) == (pytest.approx(wilson.low, abs=1e-9), pytest.approx(wilson.high))
    assert not math.isnan(of_share(torch.ones(5, dtype=torch.bool)).high)


def test_a_squared_distance_far_from_zero_has_students_interval_and_at_zero_half_its_variance():
    far = of_squared_distance(100.0, 0.01, 0.04, 20)
    assert far.high - far.low == pytest.approx(2 * student(19) * 0.2, rel=1e-3)
    ends = of_squared_distance(1.0, 1.0, 1e-6, 20)  # the estimate is 0: half of the variance, for V is small
    assert ends.high - ends.low == pytest.approx(2 * student(19) * (1e-6 / 2) ** 0.5, rel=1e-3)
    assert of_squared_distance(0.0, 0.0, 0.0, 20) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_the_ends_solve_the_equation_that_defines_them(shift):
    value, bias, variance = 0.1 + shift, 0.09, 0.002
    found, kappa = of_squared_distance(value, bias, variance, 20), variance / value
    skewness = kappa * (1.959964**2 - 1) / 6
    for theta in (found.low, found.high):
        assert (value - bias - skewness - theta) ** 2 == pytest.approx(student(19) ** 2 * kappa * (theta + bias / 2))


def held(n: int, apart: float, repetitions: int) -> float:
    """Share of intervals that hold the true distance, in 8 dimensions: a shift and axes that are stretched."""
    generator = torch.Generator().manual_seed(0)
    before, after = torch.linspace(0.5, 1.5, 8).double(), torch.linspace(0.5, 1.5, 8).double() * (1 + apart / 2)
    true = 8 * apart**2 + (before - after).square().sum().item()
    count = 0
    for _ in range(repetitions):
        x, y = torch.randn(2, n, 8, generator=generator, dtype=torch.float64)
        found = frechet_intervals(x * before, y * after + apart).infinite
        count += found.low <= true <= found.high
    return count / repetitions


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_19_of_20_intervals_hold_the_distance(apart):
    assert held(300, apart, 100) >= 0.88  # 3 standard deviations of a share of 100


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 2000])
@pytest.mark.parametrize("apart", [0.0, 0.02, 0.3])
def test_950_of_1000_intervals_hold_the_distance(n, apart):
    assert 0.93 <= held(n, apart, 1000) <= 0.97

"""The Frechet distance against its definition, on covariances that break naive square roots."""

import numpy as np
import pytest
import torch

from diffusion.evaluation.metrics.frechet import frechet_distance, frechet_intervals, moments_of, moments_without


def features(n, d, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return scale * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + seed


@pytest.mark.parametrize("n, d", [(500, 8), (20, 8), (6, 16), (30, 64)])  # the last two: rank-deficient
def test_equals_scipys_matrix_root(n, d):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = features(n, d), features(n, d, seed=1, scale=0.5)
    s, t = np.cov(a.numpy().T), np.cov(b.numpy().T)
    jitter = 1e-9 * np.eye(d)
    root = linalg.sqrtm((s + jitter) @ (t + jitter)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(s + t - 2 * root)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-3)


def test_is_a_distance():
    a, b = moments_of(features(100, 6)), moments_of(features(100, 6, seed=2))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a)) and frechet_distance(a, b) > 0


def test_a_shift_costs_its_square():
    x = features(200, 5)
    shift = torch.arange(5.0).double()
    assert frechet_distance(moments_of(x), moments_of(x + shift)) == pytest.approx(30.0)


def test_one_picture_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        moments_of(features(1, 3))


def test_equals_scipys_on_covariances_without_a_common_direction():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = torch.zeros(2, 40, 12, dtype=torch.float64)
    a[:, :7], b[:, 5:] = features(40, 7), features(40, 7, seed=1)
    for x, y in ((a, b), (1e6 * a, a), (a, a[:, :1] @ a[:1])):
        s, t = np.cov(x.numpy().T), np.cov(y.numpy().T)
        # the root of a product of semi-definite matrices through that of a symmetric one: scipy's is exact on it
        half = linalg.sqrtm(s + 1e-12 * np.eye(12) * np.trace(s)).real
        cross = np.trace(linalg.sqrtm(half @ t @ half + 1e-14 * np.eye(12) * np.trace(s) * np.trace(t)).real)
        expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s) + np.trace(t) - 2 * cross
        assert frechet_distance(moments_of(x), moments_of(y)) == pytest.approx(expected, rel=1e-4)


def test_taking_vectors_out_is_never_having_had_them():
    x = features(50, 6)
    left, again = moments_without(moments_of(x), x[:9]), moments_of(x[9:])
    assert left.n == again.n == 41
    assert torch.allclose(left.mean, again.mean) and torch.allclose(left.covariance, again.covariance)
    with pytest.raises(ValueError, match="leave 1"):
        moments_without(moments_of(x), x[1:])


def test_the_distance_at_n_is_the_plug_in_one_and_infinity_lies_on_its_line():
    a, b = features(300, 5), features(200, 5, seed=1)
    found = frechet_intervals(a, b, count=10)
    assert found.at_n.value == frechet_distance(moments_of(a), moments_of(b))
    bias = found.at_n.value - found.infinite.value
    for end in ("low", "high"):
        assert getattr(found.at_n, end) - getattr(found.infinite, end) == pytest.approx(bias)
    assert found.infinite.low < found.infinite.value < found.infinite.high

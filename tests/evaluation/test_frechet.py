"""The Frechet distance against its definition, on covariances that break naive square roots."""

import numpy as np
import pytest
import torch

from diffusion.evaluation.metrics.frechet import frechet_distance, moments_of


def features(n, d, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return scale * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + seed


@pytest.mark.parametrize("n, d", [(500, 8), (20, 8), (6, 16)])  # the last two: few pictures, rank-deficient
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

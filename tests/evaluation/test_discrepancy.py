"""Kernel distance and CMMD: every pair counted once, and right in the mean."""

import pytest
import torch

from diffusion.evaluation.metrics.cmmd import cmmd, gaussian
from diffusion.evaluation.metrics.discrepancy import squared_discrepancy
from diffusion.evaluation.metrics.kernel import kernel_distance, polynomial


def sets(n=30, m=23, d=4, seed=0, shift=0.3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator) + shift


@pytest.mark.parametrize("kernel", [polynomial, gaussian])
def test_it_is_the_mean_over_pairs_of_different_pictures(kernel):
    x, y = (z.double() for z in sets())
    apart = [[kernel(a[None], b[None]).item() for a in z for b in z if a is not b and not torch.equal(a, b)]
             for z in (x, y)]
    expected = sum(sum(values) / len(values) for values in apart) - 2 * kernel(x, y).mean().item()
    assert [len(values) for values in apart] == [30 * 29, 23 * 22]
    for count in (2, 10):
        assert squared_discrepancy(x, y, kernel, count).value == pytest.approx(expected)


def test_kernels_are_the_papers():
    x, y = (z[:2].double() for z in sets())
    for i in range(2):
        for j in range(2):
            assert polynomial(x, y)[i, j] == pytest.approx(((x[i] @ y[j]).item() / 4 + 1) ** 3)
            assert gaussian(x, y)[i, j] == pytest.approx(torch.exp(-(x[i] - y[j]).square().sum() / 200).item())


@pytest.mark.parametrize("metric", [kernel_distance, cmmd])
def test_unbiased_where_the_distance_is_none(metric):
    values = torch.tensor([metric(*sets(24, 24, 3, seed, 0.0), count=4).value for seed in range(150)])
    assert abs(values.mean()) < 3 * values.std() / 150**0.5
    assert (values < 0).any()


def test_unbiased_where_it_is_known():
    """The Gaussian kernel between N(0, 1) and N(s, 1): sqrt(h / (h + 2)) (1 - exp(-s^2 / (2 (h + 2)))) 2, h = 100."""
    shift = 2.0
    values = torch.tensor([cmmd(*sets(24, 24, 1, seed, shift), count=4).value for seed in range(150)])
    true = 2000 * (100 / 102) ** 0.5 * (1 - torch.exp(torch.tensor(-shift**2 / 204)).item())
    assert abs(values.mean() - true) < 3 * values.std() / 150**0.5


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_19_of_20_intervals_hold_the_discrepancy(shift):
    true = 2000 * (100 / 102) ** 0.5 * (1 - torch.exp(torch.tensor(-4 * shift**2 / 204)).item()) * (100 / 102) ** 1.5
    found = [cmmd(*sets(100, 150, 4, seed, shift), count=10) for seed in range(100)]
    assert sum(i.low <= true <= i.high for i in found) / 100 >= 0.88  # 3 standard deviations of a share of 100


def test_features_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="4 and 3 dimensions"):
        kernel_distance(sets()[0], sets()[1][:, :3])

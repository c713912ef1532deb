"""Precision, recall, density and coverage where the answer is known."""

import pytest
import torch

from diffusion.evaluation.metrics.neighbours import neighbours


def line(*points: float) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float32)[:, None]


def test_on_a_line_by_hand():
    real, samples = line(0, 1, 3, 10), line(0.5, 4, 100, 101)
    found = neighbours(samples, real, k=1, k_density=1)  # the balls' radii: 1 1 2 7 and 3.5 3.5 1 1
    assert found.precision.value == 0.5  # 0.5 and 4
    assert found.recall.value == 0.75  # 0, 1, 3 within 3.5 of 0.5 or 4
    assert found.density.value == (2 + 2) / 4  # 0.5 in the balls of 0 and 1; 4 in those of 3 and 10
    assert found.coverage.value == 1.0  # by 0.5, 0.5, 4, 4


def test_the_k_th_neighbour_is_not_the_picture_itself():
    found = neighbours(line(2.5, 50), line(0, 1, 2, 10), k=1, k_density=2)  # radii 1 1 1 8, and of k = 2: 2 1 2 9
    assert (found.precision.value, found.density.value, found.coverage.value) == (0.5, (1 + 1) / 4, 0.5)


def test_a_set_against_itself_is_perfect():
    x = torch.randn(200, 5)
    found = neighbours(x, x)
    assert found.precision.value == found.recall.value == found.coverage.value == 1.0
    assert found.density.value == pytest.approx(6 / 5)  # a ball of k = 5 holds its centre too


def test_far_apart_nothing_is_shared():
    found = neighbours(torch.randn(50, 3) + 100, torch.randn(60, 3))
    assert tuple(part.value for part in vars(found).values()) == (0, 0, 0, 0)


def test_a_collapsed_model_is_precise_and_recalls_little():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(1500, 4, generator=generator)  # more than one block of rows
    found = neighbours(0.1 * torch.randn(300, 4, generator=generator), real)
    assert found.precision.low > 0.7 and found.recall.value < 0.05 and found.coverage.value < 0.1


def test_of_one_distribution_density_and_coverage_are_known_in_the_mean():
    """Naeem et al. 2020, section 4: 1, and 1 - prod_i (n - i) / (n + m - i) over i = 1 .. k."""
    generator, n, repetitions = torch.Generator().manual_seed(0), 60, 200
    found = [neighbours(*torch.randn(2, n, 3, generator=generator)) for _ in range(repetitions)]
    missed = 1.0
    for i in range(1, 6):
        missed *= (n - i) / (2 * n - i)
    for part, expected in (("density", 1.0), ("coverage", 1 - missed)):
        values = torch.tensor([getattr(f, part).value for f in found])
        assert abs(values.mean() - expected) < 3 * values.std() / repetitions**0.5


def test_too_few_pictures_for_a_neighbour():
    with pytest.raises(ValueError, match="k = 3: among 3 pictures"):
        neighbours(torch.randn(3, 2), torch.randn(9, 2))

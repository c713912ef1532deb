import pytest
import torch

from diffusion.estimate import Estimate
from diffusion.guidance import thresholded
from diffusion.latent import Sampling
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.identity import Identity
from diffusion.schedules import CosineFlow
from tests.options import options

SIZES = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
X0 = SIZES.view(4, 1, 1, 1) * (2 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double() - 1)
TIMES = [torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.6, 1e-3)]


def at(schedule, t, x0=X0):
    """x_t, a Denoise that answers x0 for it, and the same thresholded at a share."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).double()
    estimate = Estimate(x0, eps)
    return schedule.diffuse(x0, t, eps), estimate, lambda p: thresholded(lambda x, t: estimate, schedule, p)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("percentile", [0.5, 0.995, 1.0])
def test_x0_ends_within_the_range_of_pixels(percentile, t):
    x_t, _, with_threshold = at(CosineFlow(), t)
    assert with_threshold(percentile)(x_t, t).x0.abs().max() <= 1


@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("t", TIMES)
def test_x0_and_eps_still_agree_with_x_t(schedule, t):
    x_t, _, with_threshold = at(schedule, t)
    x0, eps, _ = with_threshold(0.9)(x_t, t)
    torch.testing.assert_close(schedule.diffuse(x0, t, eps), x_t)


@pytest.mark.parametrize("t", TIMES)
def test_what_lies_within_the_range_is_not_touched(t):
    x_t, estimate, with_threshold = at(CosineFlow(), t, X0.clamp(-1, 1))
    got = with_threshold(0.5)(x_t, t)
    assert torch.equal(got.x0, estimate.x0) and torch.equal(got.eps, estimate.eps)


def test_each_picture_is_divided_by_its_own_percentile():
    x_t, estimate, with_threshold = at(CosineFlow(), TIMES[1])
    x0 = with_threshold(0.75)(x_t, TIMES[1]).x0
    for picture, before in zip(x0, estimate.x0, strict=True):
        s = max(before.abs().flatten().quantile(0.75).item(), 1)
        inside = before.abs() <= s
        torch.testing.assert_close(picture[inside], before[inside] / s)
        assert (picture[~inside].abs() == 1).all()
        if s > 1:
            assert inside.double().mean() == pytest.approx(0.75, abs=0.01)


def test_it_is_for_pixels():
    Sampling(threshold=0.995).check(Identity())
    Sampling().check(KLAutoencoder(widths=[32, 32]))
    with pytest.raises(ValueError, match="autoencoder=identity"):
        Sampling(threshold=0.995).check(KLAutoencoder(widths=[32, 32]))


@pytest.mark.parametrize("wrong", [0.0, -0.5, 99.5])
def test_a_percentile_is_a_share(wrong):
    with pytest.raises(ValueError, match="as a share"):
        Sampling(threshold=wrong)

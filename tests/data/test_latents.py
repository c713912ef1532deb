"""What the denoiser is shown: the data set's own pixels, or samples of the posteriors of its pictures."""

import pytest
import torch

from diffusion.acceleration import Acceleration
from diffusion.data.latent_cache import moments
from diffusion.data.latents import PixelSamples, Posteriors, drawn
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.identity import Identity
from diffusion.pixels import to_float

N, ALL = 12, slice(0, 12)


def x0_of(samples, index, step, rows):
    return drawn(samples(index, step, rows), N, 0, step, rows)


@pytest.fixture
def images():
    return torch.randint(256, (N, 3, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("mirror", [False, True])
def test_pixels_are_exactly_the_pictures_and_their_mirror_images(images, mirror):
    x, seen = to_float(images), x0_of(PixelSamples(images, N, 0, mirror), torch.arange(N), 0, ALL)
    same, flipped = (seen == x).flatten(1).all(1), (seen == x.flip(-1)).flatten(1).all(1)
    assert (same | flipped).all() and flipped.any() == mirror and same.any()


def test_the_posteriors_of_no_autoencoder_give_the_same_pixels(images):
    cached = moments(Identity(), images, Acceleration(), mirror=True)
    pixels, posteriors = PixelSamples(images, N, 0, True), Posteriors(cached, N, 0)
    for step in range(3):
        index = torch.randperm(N)
        assert torch.equal(x0_of(pixels, index, step, ALL), x0_of(posteriors, index, step, ALL))


def test_each_step_draws_another_sample_around_the_posteriors_mean(images):
    autoencoder = KLAutoencoder(latent_channels=2, widths=[8, 8], norm_groups=4, mid_attention=False)
    cached = moments(autoencoder, images, Acceleration())
    draws = torch.stack([x0_of(Posteriors(cached, N, 0), torch.arange(N), step, ALL) for step in range(200)])
    mean, std = cached[:, 0].unbind(1)
    assert ((draws.mean(0) - mean).abs() < 5 * std / 200**0.5).all()
    assert (draws.std(0) / std - 1).abs().max() < 0.3


def test_a_slice_of_a_batch_is_that_slice_of_the_draws(images):
    index = torch.arange(N)
    for samples in (PixelSamples(images, N, 0, True),
                    Posteriors(torch.rand(N, 2, 2, 3, 8, 8), N, 0)):
        assert torch.equal(x0_of(samples, index[4:9], 7, slice(4, 9)), x0_of(samples, index, 7, ALL)[4:9])

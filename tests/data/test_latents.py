"""What the denoiser is shown: the data set's own pixels, or samples of the posteriors of its pictures."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.acceleration import Acceleration
from diffusion.data.latent_cache import cached, cached_captions, cached_latents, encodings, moments
from diffusion.data.latents import PixelSamples, Posteriors, drawn
from diffusion.data.mapped import mapped
from diffusion.data.shapes import Shapes
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.identity import Identity
from diffusion.pixels import to_float
from diffusion.text import tokenizer
from diffusion.text.clip import SmallCLIP

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


def test_what_is_filled_in_its_file_is_what_safetensors_writes(tmp_path):
    wanted = {"a": torch.randn(3, 5), "bc": torch.randn(2, 1, 7)}
    filled = mapped(tmp_path / "filled", **{name: tuple(x.shape) for name, x in wanted.items()})
    for name, x in wanted.items():
        filled[name][:] = x
    save_file({name: x.bfloat16() for name, x in wanted.items()}, tmp_path / "saved")
    for name, x in load_file(tmp_path / "saved").items():
        assert torch.equal(load_file(tmp_path / "filled")[name], x) and x.dtype == torch.bfloat16


def test_a_disk_without_room_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"no room for 0\.5 GiB \(.*No space"):
        mapped(tmp_path / "filled", moments=(2**28,))


def test_the_cache_holds_what_the_encoders_say_and_asks_them_once(images, tmp_path, monkeypatch):
    split = Shapes(train=20, test=4, image_size=32).split("train")
    autoencoder = KLAutoencoder(latent_channels=2, widths=[8, 8], norm_groups=4, mid_attention=False)
    clip = SmallCLIP(tokenizer.learn(split.captions, 600), width=64, layers=1, vision_width=64, vision_layers=1)

    def latents():
        return cached_latents(tmp_path, autoencoder, split, "data", Acceleration(), mirror=True, name="train")

    def captions():
        return cached_captions(tmp_path, clip, split.captions, Acceleration())

    asked = latents(), captions()
    monkeypatch.setattr(autoencoder, "posterior", None)
    monkeypatch.setattr(clip, "encode", None)
    again = latents(), captions()
    monkeypatch.undo()
    told = encodings(clip, split.captions, Acceleration(), chunk=7)
    for moment, cond in (asked, again):
        assert torch.equal(moment, moments(autoencoder, split.images, Acceleration(), mirror=True).bfloat16())
        torch.testing.assert_close(cond.tokens, told.tokens)
        torch.testing.assert_close(cond.pooled, told.pooled)


def test_a_cache_that_was_interrupted_leaves_no_file(tmp_path):
    def make(allocate):
        allocate(moments=(4, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "latents", ("one",), make)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]

"""Outside training, what a network sees at once is bounded by pixels, and every picture is seen once."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion.acceleration import Acceleration
from diffusion.data.latent_cache import moments
from diffusion.data.pictures import AT_ONCE, MOST, at_once, chunks
from diffusion.denoiser import Denoiser
from diffusion.latent import LatentDiffusion
from diffusion.models.identity import Identity
from diffusion.parameterizations import V
from diffusion.schedules import Cosine


@given(side=st.integers(1, 512), factor=st.sampled_from([1, 2, 8]))
def test_at_once_is_as_many_as_the_pixels_allow(side, factor):
    n, pixels = at_once(torch.empty(0, 3, side, side), factor), (factor * side) ** 2
    assert 1 <= n <= MOST
    assert n == 1 or n * pixels <= AT_ONCE
    assert n == MOST or (n + 1) * pixels > AT_ONCE


@given(n=st.integers(0, 50), size=st.integers(1, 60))
def test_chunks_are_the_whole_in_order(n, size):
    parts = list(chunks(range(n), size))
    assert [i for part in parts for i in part] == list(range(n))
    assert all(len(part) == size for part in parts[:-1])


class Unused(torch.nn.Module):
    """A denoiser's network of which only the device counts."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


class Watched(Identity):
    """Counts the pixels that it sees at once."""

    def __init__(self):
        super().__init__()
        self.pixels = []

    def posterior(self, x):
        self.pixels.append(len(x) * x.shape[-1] ** 2)
        return super().posterior(x)

    def decode(self, z):
        self.pixels.append(len(z) * z.shape[-1] ** 2)
        return super().decode(z)


def test_large_pictures_are_encoded_and_decoded_in_pieces_of_bounded_memory():
    watched, x = Watched(), torch.rand(9, 3, 256, 256) * 2 - 1
    model = LatentDiffusion(watched, None, Denoiser(Unused(), Cosine(), V()), x.shape[1:])
    shown = model.decode(x)
    torch.testing.assert_close(moments(watched, shown, Acceleration())[:, 0, 0],
                               model.autoencoder.encode(shown.float() / 127.5 - 1))
    assert torch.equal(model.decode(x[4:5]), shown[4:5])
    assert len(watched.pixels) > 4 and max(watched.pixels) <= AT_ONCE

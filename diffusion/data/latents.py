"""The training set as the denoiser sees it: x_0, and the encoding of one of its captions.

The cache of an autoencoder keeps moments, not samples: each step draws its own posterior sample. Pixels need no cache:
they are the data set's own 8-bit pictures.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion import rng
from diffusion.conditioning import Conditioning
from diffusion.data.captioned import CaptionedImages
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import mirrored
from diffusion.pixels import to_float


class PosteriorSamples:
    """x_0 of the rows `index`: a fresh sample of their posteriors."""

    def __init__(self, moments: Float[Tensor, "n f 2 c h w"], batch: int, seed: int):
        self.moments, self.batch, self.seed = moments, batch, seed

    def __call__(self, index: Tensor, step: int, rows: slice) -> Float[Tensor, "b c h w"]:
        view = rng.integers(self.moments.shape[1], (self.batch,), self.seed, step, "mirror", rows=rows)
        mean, std = self.moments[index, view].float().unbind(1)
        return mean + std * rng.normal((self.batch, *mean.shape[1:]), self.seed, step, "posterior", rows=rows)


class PixelSamples:
    """x_0 of the rows `index`: the pictures, mirrored half of the time where the data set allows."""

    def __init__(self, images: UInt8[Tensor, "n c h w"] | OnDemand, batch: int, seed: int, mirror: bool):
        self.images, self.batch, self.seed, self.mirror = images, batch, seed, mirror

    def __call__(self, index: Tensor, step: int, rows: slice) -> Float[Tensor, "b c h w"]:
        images = self.images[index]
        if self.mirror:
            images = mirrored(images, rng.integers(2, (self.batch,), self.seed, step, "mirror", rows=rows) == 1)
        return to_float(images)


class Latents:
    """Fetches x_0, one caption's encoding and the null encoding where the caption is dropped.

    caption_dropout  share of rows that see the null condition (Ho & Salimans 2022)
    """

    def __init__(self, x0: PosteriorSamples | PixelSamples, captions: Conditioning | None, null: Conditioning | None,
                 split: CaptionedImages, *, batch: int, seed: int, caption_dropout: float):
        self.x0, self.captions, self.null, self.split = x0, captions, null, split
        self.batch, self.seed, self.caption_dropout = batch, seed, caption_dropout

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict:
        out = {"x0": self.x0(index, step, rows)}
        if self.captions is not None:
            ways = self.split.caption_ids.shape[1]
            ids = self.split.caption_ids[
                index, rng.integers(ways, (self.batch,), self.seed, step, "caption", rows=rows)]
            keep = rng.uniform((self.batch,), self.seed, step, "dropout", rows=rows) >= self.caption_dropout
            cond = self.captions[ids].to(torch.float32).where(keep, self.null.expand(len(ids)))
            out |= {"tokens": cond.tokens, "pooled": cond.pooled}
        return out

"""The training set as the denoiser sees it: x_0, and the encoding of one of its captions.

The cache of an autoencoder keeps moments, not samples: each step draws its own posterior sample. Pixels need no cache:
they are the data set's own 8-bit pictures.
"""

from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion import rng
from diffusion.conditioning import Conditioning
from diffusion.data.captioned import CaptionedImages
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import mirrored
from diffusion.memory import rows_of
from diffusion.pixels import to_float


class Posteriors:
    """Mean and standard deviation of x_0 of the rows `index`; whoever trains draws from it, on its own device."""

    def __init__(self, moments: Float[Tensor, "n f 2 c h w"], batch: int, seed: int):
        self.moments, self.batch, self.seed = moments, batch, seed

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict[str, Float[Tensor, "b c h w"]]:
        view = rng.integers(self.moments.shape[1], (self.batch,), self.seed, step, "mirror", rows=rows)
        mean, std = rows_of(self.moments.flatten(0, 1), index * self.moments.shape[1] + view).float().unbind(1)
        return {"x0": mean, "std": std}


def drawn(fetched: dict, batch: int, seed: int, step: int, rows: slice) -> Float[Tensor, "b c h w"]:
    """x_0: a fresh sample of the posteriors, drawn where they lie; pixels as they are."""
    x0, std = fetched["x0"], fetched.get("std")
    if std is None:
        return x0
    return x0 + std * rng.normal((batch, *x0.shape[1:]), seed, step, "posterior", x0.device, rows)


class PixelSamples:
    """x_0 of the rows `index`: the pictures, mirrored half of the time where the data set allows."""

    def __init__(self, images: UInt8[Tensor, "n c h w"] | OnDemand, batch: int, seed: int, mirror: bool):
        self.images, self.batch, self.seed, self.mirror = images, batch, seed, mirror

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict[str, Float[Tensor, "b c h w"]]:
        images = rows_of(self.images, index)
        if self.mirror:
            images = mirrored(images, rng.integers(2, (self.batch,), self.seed, step, "mirror", rows=rows) == 1)
        return {"x0": to_float(images)}


class Latents:
    """Fetches x_0, one caption's encoding and the null encoding where the caption is dropped.

    caption_dropout  share of rows that see the null condition (Ho & Salimans 2022)
    """

    def __init__(self, x0: Posteriors | PixelSamples, captions: Conditioning | None, null: Conditioning | None,
                 split: CaptionedImages, *, batch: int, seed: int, caption_dropout: float):
        self.x0, self.captions, self.null, self.split = x0, captions, null, split
        self.batch, self.seed, self.caption_dropout = batch, seed, caption_dropout

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict:
        out = self.x0(index, step, rows)
        if self.captions is not None:
            ways = self.split.caption_ids.shape[1]
            ids = self.split.caption_ids[
                index, rng.integers(ways, (self.batch,), self.seed, step, "caption", rows=rows)]
            keep = rng.uniform((self.batch,), self.seed, step, "dropout", rows=rows) >= self.caption_dropout
            cond = self.captions.map(lambda part: rows_of(part, ids).float())
            keep = keep.to(cond.tokens.device, non_blocking=True)
            cond = cond.where(keep, self.null.expand(len(ids)))
            out |= {"tokens": cond.tokens, "pooled": cond.pooled}
        return out

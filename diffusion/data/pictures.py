"""Training batches of pictures and captions: what the stages before the denoiser read."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from diffusion import rng
from diffusion.data.captioned import CaptionedImages
from diffusion.data.on_demand import OnDemand
from diffusion.memory import rows_of

MOST = 250
AT_ONCE = MOST * 32**2  # pixels that a network sees together outside training


def mirrored(images: UInt8[Tensor, "b c h w"], flip: Tensor) -> UInt8[Tensor, "b c h w"]:
    """Pictures with those rows mirrored where flip is True."""
    return torch.where(flip.to(images.device, non_blocking=True).view(-1, 1, 1, 1), images.flip(-1), images)


class Pictures:
    """Fetches pictures, one caption each, labels and content.

    mirror  each picture is mirrored half of the time
    images  the split's, where they lie elsewhere too
    """

    def __init__(self, split: CaptionedImages, batch: int, seed: int, mirror: bool,
                 tokens: Int64[Tensor, "m l"] | None = None, images: UInt8[Tensor, "n c h w"] | OnDemand | None = None):
        self.split, self.batch, self.seed, self.mirror, self.tokens = split, batch, seed, mirror, tokens
        self.images = split.images if images is None else images

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict:
        images = rows_of(self.images, index)
        if self.mirror:
            images = mirrored(images, rng.integers(2, (self.batch,), self.seed, step, "mirror", rows=rows) == 1)
        out = {"image": images, "content": self.split.content[index], "label": self.split.labels[index]}
        if self.tokens is not None:
            ways = self.split.caption_ids.shape[1]
            way = rng.integers(ways, (self.batch,), self.seed, step, "caption", rows=rows)
            out["tokens"] = self.tokens[self.split.caption_ids[index, way]]
        return out


def share(n: int, rank: int, world: int) -> range:
    """The part of 0..n that a rank works on: disjoint, nothing twice."""
    return range(rank * n // world, (rank + 1) * n // world)


def at_once(images: Tensor | OnDemand, factor: int = 1) -> int:
    """How many pictures a network sees together where nothing is learned, `factor` times as high and wide as these: the
    fewer the larger they are, so that its memory is that of AT_ONCE pixels, or of one picture that has more."""
    height, width = (factor * side for side in images.shape[-2:])
    return max(1, min(MOST, AT_ONCE // (height * width)))


def chunks(items: Sequence | Tensor, size: int) -> Iterator:
    """Consecutive pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

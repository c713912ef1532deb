"""Feature extractors: 8-bit pictures to vectors. Two networks that are always at hand; others have the same form."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from diffusion.checkpoint import weights_hash
from diffusion.data.pictures import chunks
from diffusion.pixels import to_float
from diffusion.text.clip import CLIP


@runtime_checkable
class FeatureExtractor(Protocol):
    """`name` and `hash` stand beside every number that was computed with it."""

    name: str
    hash: str

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]: ...


class ClipFeatures:
    """The image tower's embedding."""

    name = "clip"

    def __init__(self, clip: CLIP):
        self.clip = clip.eval()
        self.hash = weights_hash(clip)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        device = self.clip.device
        return torch.cat([self.clip.image_embedding(to_float(part.to(device))).cpu() for part in chunks(images, 250)])


class JudgeFeatures:
    """The judge's pooled activations."""

    name = "judge"

    def __init__(self, judge: nn.Module):
        self.judge = judge.eval()
        self.hash = weights_hash(judge)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        device = next(self.judge.parameters()).device
        return torch.cat([self.judge.features(to_float(part.to(device))).cpu() for part in chunks(images, 250)])

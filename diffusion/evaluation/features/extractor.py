"""What a feature extractor is, and how one goes through many pictures."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion.data.pictures import chunks


@runtime_checkable
class FeatureExtractor(Protocol):
    """`name` and `hash` stand beside every number that was computed with it."""

    name: str
    hash: str

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]: ...


@torch.no_grad()
def extracted(network: Callable[[Tensor], Tensor], images: UInt8[Tensor, "n c h w"], device: torch.device | str,
              size: int) -> Float[Tensor, "n d"]:
    """The rows of network(part) for parts of `size` pictures, on the CPU: in float32 that is not rounded to TF32.

    The size is the extractor's own, not the evaluation's batch, which therefore changes no number.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        return torch.cat([network(part.to(device)).float().cpu() for part in chunks(images, size)])

"""Between uint8 pictures and the float pixels in [-1, 1] that networks see: the only two conversions in the project."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_float(images: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """0..255 -> [-1, 1] in float32."""
    return images.float() / 127.5 - 1


def to_uint8(pixels: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """[-1, 1] -> 0..255: clamped and rounded to nearest, as every grid, file and score sees it."""
    return ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

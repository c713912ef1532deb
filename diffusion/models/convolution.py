"""A 3x3 convolution whose weight gradient is fast on short rows too, where it is compiled for a CPU with AMX.

    dw[o, c, i, j] = sum over pictures n and positions y, x of dy[n, o, y, x] x[n, c, y + i - 1, x + j - 1]

oneDNN takes up to twice as long for this sum where rows are short (they do not fill AMX's tiles, it seems). With the
rows of several pictures side by side, a column of zeros between them, the sum is the same.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SHORT, BESIDE = 16, 32  # positions in a row, from which on nothing is gained; pictures beside each other
AMX = torch.cpu._is_amx_tile_supported()


def side_by_side(x: Float[Tensor, "n c h w"], pictures: int) -> Float[Tensor, "m c h v"]:
    """In groups of so many pictures, each with a column of zeros to its right."""
    return rearrange(F.pad(x, (0, 1)), "(n k) c h w -> n c h (k w)", k=pictures).contiguous(
        memory_format=torch.channels_last)


class ShortRows(torch.autograd.Function):
    """F.conv2d(x, weight, bias, padding=1) in the type of x, with the weight's gradient of pictures side by side."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype) if ctx.biased else None, padding=1)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        low, pictures = weight.to(x.dtype), math.gcd(len(x), BESIDE)
        dx = gradients(dy, x, low)[0]
        dw = gradients(side_by_side(dy, pictures), side_by_side(x, pictures), low, of_weight=True)[1]
        return dx, dw.to(weight.dtype), dy.sum((0, 2, 3), dtype=weight.dtype) if ctx.biased else None


def gradients(dy: Tensor, x: Tensor, w: Tensor, of_weight: bool = False) -> tuple[Tensor | None, Tensor | None, None]:
    """Of x, or of the weight."""
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [not of_weight, of_weight, False])


class Convolution(nn.Conv2d):
    """torch's with a 3x3 kernel, stride 1 and padding 1; without its bias where something else adds that."""

    def __init__(self, channels: int, out: int):
        super().__init__(channels, out, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"], *, biased: bool = True) -> Float[Tensor, "n d h w"]:
        bias = self.bias if biased else None
        if AMX and x.device.type == "cpu" and x.shape[3] < SHORT and torch.compiler.is_compiling():
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            if dtype is torch.bfloat16:
                return ShortRows.apply(x.to(dtype), self.weight, bias)
        return F.conv2d(x, self.weight, bias, padding=1)

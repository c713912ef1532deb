"""How a network is told a number, or a position: waves of it, then a small MLP (Ho et al. 2020; Vaswani et al. 2017).

    e_k = cos(w_k t), e_{k + d/2} = sin(w_k t),   w_k = 10000^(-2k/d),   k = 0 .. d/2 - 1
"""

import math

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn


def sinusoidal(t: Float[Tensor, " b"], dim: int) -> Float[Tensor, "b dim"]:
    """Cosines first, then sines, in float32; `dim` is even.

    The slowest wave has a period of 2 pi 10^4 and the fastest of 2 pi: labels span 0 to 1000, or a few units (EDM's
    c_noise).
    """
    k = torch.arange(dim // 2, dtype=torch.float32, device=t.device)
    w = torch.exp(-math.log(10_000) * k / (dim // 2))
    angle = t.float()[:, None] * w
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def sinusoidal_2d(height: int, width: int, dim: int, device: torch.device | None = None) -> Float[Tensor, "n dim"]:
    """The positions of a grid, row by row: half the channels are the waves of the row, half those of the column.

    `dim` is a multiple of 4.
    """
    rows, columns = (
        sinusoidal(torch.arange(n, dtype=torch.float32, device=device), dim // 2) for n in (height, width)
    )
    rows, columns = repeat(rows, "h d -> (h w) d", w=width), repeat(columns, "w d -> (h w) d", h=height)
    return torch.cat([rows, columns], dim=-1)


class TimeEmbedding(nn.Module):
    """linear_2(silu(linear_1(x))): for the waves of the time, and for a pooled text vector."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        return self.linear_2(F.silu(self.linear_1(x)))

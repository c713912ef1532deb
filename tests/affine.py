"""A small network of which all can be asked: affine in x, moved by the pooled caption."""

import torch
from torch import nn

from diffusion.conditioning import Conditioning

T = torch.tensor(0.6, dtype=torch.float64)


class Moved(nn.Module):
    """It counts the rows that it is asked about."""

    def __init__(self, seed: int = 0, width: int = 6):
        super().__init__()
        torch.manual_seed(seed)
        self.mix, self.rows = nn.Linear(width, width), []

    def forward(self, x, label, cond):
        self.rows.append(len(x))
        y = self.mix(x)
        return y if cond is None else y + cond.pooled.to(x)


def caption(n: int, seed: int, width: int = 6) -> Conditioning:
    return Conditioning(pooled=torch.randn(n, width, generator=torch.Generator().manual_seed(seed)))


COND, NULL, X = caption(4, 1), caption(1, 2), torch.randn(4, 6, generator=torch.Generator().manual_seed(3))

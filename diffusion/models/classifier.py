"""A pre-activation residual network (He et al. 2016) with one linear head per attribute: the judge of samples.

Its pooled features before the heads are also a feature space for Frechet distances.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x))))))."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False) if stride > 1 or channels != out else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        h = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(h))))


class Classifier(nn.Module):
    """A small residual network (He et al. 2016) that names what a picture shows, one answer for each attribute.

    heads   number of values of each attribute, in the order of the data set's label columns
    widths  channels of each level, which halves the size of the one before; with blocks_per_level blocks
    mirror  in evaluation, answer with the mean logits of the picture and its mirror image
    """

    def __init__(self, heads: Sequence[int], *, channels: int = 3, widths: Sequence[int] = (64, 128, 256),
                 blocks_per_level: int = 2, mirror: bool = False):
        super().__init__()
        self.mirror = mirror
        self.conv_in = nn.Conv2d(channels, widths[0], 3, 1, 1)
        levels, before = [], widths[0]
        for level, width in enumerate(widths):
            for block in range(blocks_per_level):
                levels.append(Block(before, width, 2 if level and not block else 1))
                before = width
        self.body, self.norm_out = nn.Sequential(*levels), nn.BatchNorm2d(before)
        self.heads = nn.ModuleList(nn.Linear(before, values) for values in heads)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pooled activations of the last block; x is pixels in [-1, 1]."""
        return F.relu(self.norm_out(self.body(self.conv_in(x)))).mean((2, 3))

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        logits = self._logits(x)
        if not self.mirror or self.training:
            return logits
        return [(a + b) / 2 for a, b in zip(logits, self._logits(x.flip(-1)), strict=True)]

    def _logits(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        pooled = self.features(x)
        return [head(pooled) for head in self.heads]

"""Inception-v3 (Szegedy et al. 2016) as the FID was defined on it (Heusel et al. 2017): the network of 5 December 2015.

It differs from the published architecture, and from torchvision's, in three ways: average pooling does not count the
padding, the last block pools by maximum, and there are 1008 classes. Names are those of the public weight file
`pt_inception-2015-12-05`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "b c h w"]
Out = Float[Tensor, "b d i j"]


class Conv(NamedTuple):
    """One convolution. Of stride 1 it keeps the size unless `padded` is False; of stride 2 it is never padded."""

    out: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padded: bool = True


Fork = list[Conv]  # of one input, joined along the channels
Branch = Sequence[Conv | Fork]


class ConvBatchNorm(nn.Module):
    """relu(bn(conv(x)))."""

    def __init__(self, before: int, spec: Conv):
        super().__init__()
        kernel = (spec.kernel, spec.kernel) if isinstance(spec.kernel, int) else spec.kernel
        padding = tuple(k // 2 for k in kernel) if spec.padded and spec.stride == 1 else 0
        self.conv = nn.Conv2d(before, spec.out, kernel, spec.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(spec.out, eps=0.001)

    def forward(self, x: Maps) -> Out:
        return F.relu(self.bn(self.conv(x)))


def average(x: Maps) -> Maps:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def maximum(x: Maps) -> Maps:
    return F.max_pool2d(x, 3, 1, 1)


def halve(x: Maps) -> Out:
    return F.max_pool2d(x, 3, 2)


class Mixed(nn.Module):
    """Branches of convolutions beside one of pooling, joined along the channels.

    A branch of one convolution has its bare name; of several, they are numbered; those of a fork have a letter too.
    """

    def __init__(self, before: int, branches: Mapping[str, Branch], pool):
        super().__init__()
        self.pool, self.paths = pool, []
        for branch, specs in branches.items():
            path, width = [], before
            for i, spec in enumerate(specs, start=1):
                fork = spec if isinstance(spec, list) else [spec]
                names = [f"{branch}_{i}" if len(specs) > 1 else branch]
                if len(fork) > 1:
                    names = [names[0] + letter for letter in "ab"]
                for name, part in zip(names, fork):
                    self.add_module(name, ConvBatchNorm(width, part))
                path.append(names)
                width = sum(part.out for part in fork)
            self.paths.append((branch, path))

    def forward(self, x: Maps) -> Out:
        out = []
        for branch, path in self.paths:
            h = self.pool(x) if branch == "branch_pool" else x
            for names in path:
                h = torch.cat([getattr(self, name)(h) for name in names], 1)
            out.append(h)
        return torch.cat(out, 1)


def a(before: int, pooled: int) -> Mixed:
    return Mixed(before, {"branch1x1": [Conv(64, 1)], "branch5x5": [Conv(48, 1), Conv(64, 5)],
                          "branch3x3dbl": [Conv(64, 1), Conv(96, 3), Conv(96, 3)],
                          "branch_pool": [Conv(pooled, 1)]}, average)


def b(before: int) -> Mixed:
    return Mixed(before, {"branch3x3": [Conv(384, 3, 2)],
                          "branch3x3dbl": [Conv(64, 1), Conv(96, 3), Conv(96, 3, 2)], "branch_pool": []}, halve)


def c(before: int, width: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    return Mixed(before, {"branch1x1": [Conv(192, 1)],
                          "branch7x7": [Conv(width, 1), Conv(width, row), Conv(192, column)],
                          "branch7x7dbl": [Conv(width, 1), Conv(width, column), Conv(width, row), Conv(width, column),
                                           Conv(192, row)],
                          "branch_pool": [Conv(192, 1)]}, average)


def d(before: int) -> Mixed:
    return Mixed(before, {"branch3x3": [Conv(192, 1), Conv(320, 3, 2)],
                          "branch7x7x3": [Conv(192, 1), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2)],
                          "branch_pool": []}, halve)


def e(before: int, pool) -> Mixed:
    fork = [Conv(384, (1, 3)), Conv(384, (3, 1))]
    return Mixed(before, {"branch1x1": [Conv(320, 1)], "branch3x3": [Conv(384, 1), fork],
                          "branch3x3dbl": [Conv(448, 1), Conv(384, 3), fork], "branch_pool": [Conv(192, 1)]}, pool)


class Inception(nn.Module):
    """Pictures of 299 x 299 pixels, (0..255 - 128) / 128, to the 2048 pooled features. `fc` maps those to classes."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBatchNorm(3, Conv(32, 3, 2))
        self.Conv2d_2a_3x3 = ConvBatchNorm(32, Conv(32, 3, padded=False))
        self.Conv2d_2b_3x3 = ConvBatchNorm(32, Conv(64, 3))
        self.Conv2d_3b_1x1 = ConvBatchNorm(64, Conv(80, 1))
        self.Conv2d_4a_3x3 = ConvBatchNorm(80, Conv(192, 3, padded=False))
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = a(192, 32), a(256, 64), a(288, 64)
        self.Mixed_6a = b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = c(768, 128), c(768, 160), c(768, 160), c(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = d(768), e(1280, average), e(2048, maximum)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c,
                      self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):
            x = block(x)
        return x.mean((2, 3))

"""Pictures that are decoded when they are asked for: in place of a tensor where a set does not fit in memory.

Indexed like the tensor it stands for; with workers > 0 the loader's processes decode ahead.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from diffusion.data.decode import Prepare, decode


class OnDemand:
    """The files' pictures as if they were one uint8 tensor (n, 3, size, size)."""

    dtype, ndim = torch.uint8, 4

    def __init__(self, files: Sequence[Path], prepare: Prepare, size: int):
        self.files, self.prepare, self.shape = list(files), prepare, (len(files), 3, size, size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> UInt8[Tensor, "n 3 h w"]:
        """The pictures of a slice, a list or a tensor of positions, decoded now."""
        files = self.subset(index).files
        return decode(((str(file), file) for file in files), len(files), self.prepare)

    def subset(self, index: slice | Sequence[int] | Tensor) -> "OnDemand":
        """The same of some pictures; nothing is decoded yet."""
        wanted = range(len(self))[index] if isinstance(index, slice) else [int(i) for i in index]
        return OnDemand([self.files[i] for i in wanted], self.prepare, self.shape[-1])

"""What a network is told beside x_t and t: text tokens for cross-attention, a pooled vector, an image to concatenate.

Unconditional training passes None; class-conditional training is text with one caption per class.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Any part may be absent; all parts present share the batch axis.

    tokens  hidden states of the text encoder, one per token
    mask    True where a token may be attended to; None attends to all (Stable Diffusion's convention)
    pooled  one vector per caption
    image   channels to concatenate to x_t (inpainting, super-resolution)
    """

    tokens: Float[Tensor, "b l d"] | None = None
    mask: Bool[Tensor, "b l"] | None = None
    pooled: Float[Tensor, "b e"] | None = None
    image: Float[Tensor, "b k h w"] | None = None

    def map(self, function) -> "Conditioning":
        """Apply a function of one tensor to every part that is present."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Conditioning(**{name: None if part is None else function(part) for name, part in parts.items()})

    def zip(self, other: "Conditioning", function) -> "Conditioning":
        """Apply a function of two tensors part by part; both must have the same parts."""
        parts = {}
        for field in dataclasses.fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if (mine is None) != (others is None):
                raise ValueError(f"conditioning.{field.name} is present in one of the two conditionings only")
            parts[field.name] = None if mine is None else function(mine, others)
        return Conditioning(**parts)

    def __len__(self) -> int:
        return next(len(part) for part in vars(self).values() if part is not None)

    def __getitem__(self, rows) -> "Conditioning":
        return self.map(lambda part: part[rows])

    def to(self, *args, **kwargs) -> "Conditioning":
        return self.map(lambda part: part.to(*args, **kwargs))

    def expand(self, n: int) -> "Conditioning":
        """One row, n times (without copying)."""
        return self.map(lambda part: part.expand(n, *part.shape[1:]))

    def cat(self, other: "Conditioning") -> "Conditioning":
        """Both batches, one after the other."""
        return self.zip(other, lambda a, b: torch.cat([a, b]))

    def where(self, keep: Bool[Tensor, " b"], other: "Conditioning") -> "Conditioning":
        """Rows of self where `keep`, rows of `other` elsewhere: caption dropout."""
        return self.zip(other, lambda a, b: torch.where(keep.view(-1, *[1] * (a.ndim - 1)), a, b))

"""What a data set hands out: pictures with captions, and prompts with what a judge must find in them.

Captions live in a table without repeats; picture i is described by the rows caption_ids[i]. Pictures of equal
`content` (class or described scene) mean the same in their captions: no negatives in contrastive learning.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from diffusion.data.on_demand import OnDemand
from diffusion.rng import generator


class DataUnavailable(RuntimeError):
    """The pictures cannot be had here; the message says what failed and what to do about it."""


@dataclasses.dataclass(frozen=True)
class CaptionedImages:
    """One split.

    images       as they are shown: 0..255; in memory, or decoded when they are indexed
    captions     the distinct captions
    caption_ids  k captions per picture, rows of the table; all say the same content in different words
    content      equal where two pictures are described by the same captions
    labels       one column per attribute of the judge; -1 = does not apply
    """

    images: UInt8[Tensor, "n c h w"] | OnDemand
    captions: tuple[str, ...]
    caption_ids: Int64[Tensor, "n k"]
    content: Int64[Tensor, " n"]
    labels: Int64[Tensor, "n heads"]

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(f"images: uint8 (n, c, h, w) expected, got {_kind(self.images)}")
        for name, ndim in {"caption_ids": 2, "content": 1, "labels": 2}.items():
            tensor = getattr(self, name)
            if tensor.ndim != ndim or tensor.dtype != torch.int64:
                raise ValueError(f"{name}: int64 with {ndim} axes expected, got {_kind(tensor)}")
            if len(tensor) != len(self.images):
                raise ValueError(f"{name} has {len(tensor)} rows, images has {len(self.images)}")
        if self.caption_ids.shape[1] == 0:
            raise ValueError("caption_ids: a picture needs at least one caption")
        if len(set(self.captions)) != len(self.captions):
            repeated = next(c for i, c in enumerate(self.captions) if c in self.captions[:i])
            raise ValueError(f"captions: each caption once, but {repeated!r} is repeated")
        if len(self):
            low, high = (int(row) for row in self.caption_ids.aminmax())
            if low < 0 or high >= len(self.captions):
                rows = f"0..{len(self.captions) - 1}"
                raise ValueError(f"caption_ids: rows of the table ({rows}) expected, got {low}..{high}")
        _check_labels(self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index) -> "CaptionedImages":
        """The pictures of an index (tensor, slice or list); the caption table stays whole."""
        return dataclasses.replace(
            self,
            images=self.images.subset(index) if isinstance(self.images, OnDemand) else self.images[index],
            caption_ids=self.caption_ids[index],
            content=self.content[index],
            labels=self.labels[index],
        )

    def pick(self, n: int, seed: int) -> "CaptionedImages":
        """n different pictures, or all where there are fewer; a function of the seed, whatever the files' order."""
        return self.subset(torch.randperm(len(self), generator=generator(seed, 0, "pick"))[:n])


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Captions to be drawn, with the attributes a judge must find in the picture; -1 = not asked."""

    captions: tuple[str, ...]
    labels: Int64[Tensor, "n heads"]

    def __post_init__(self):
        if self.labels.ndim != 2 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels: int64 with 2 axes expected, got {_kind(self.labels)}")
        if len(self.captions) != len(self.labels):
            raise ValueError(f"labels has {len(self.labels)} rows, captions has {len(self.captions)}")
        _check_labels(self.labels)

    def __len__(self) -> int:
        return len(self.captions)


@runtime_checkable
class CaptionedDataset(Protocol):
    """A set of captioned pictures. Constructors touch no file: fingerprint() and split() do."""

    image_size: int
    channels: int
    mirror: bool
    """whether a mirrored picture is as true to its captions"""
    heads: dict[str, tuple[str, ...]]
    """attribute that a judge names -> its values; the columns of `labels`, in this order"""
    example_prompts: tuple[str, ...]
    """a screenful, for grids"""
    prompt_groups: tuple[str, ...]

    def fingerprint(self) -> str:
        """A hash of everything that changes the pictures or captions; decodes no picture."""
        ...

    def split(self, name: str) -> CaptionedImages:
        """ "train" or "test". Raises DataUnavailable."""
        ...

    def judge_split(self, name: str) -> CaptionedImages:
        """What a judge learns from and is tested on; may show more than training does."""
        ...

    def prompts(self, group: str, n: int, seed: int) -> Prompts:
        """n captions of one of `prompt_groups`, a function of the seed."""
        ...

    def retrieval(self) -> dict[str, CaptionedImages]:
        """At most 2,000 pictures each, outside training, to measure image-to-caption retrieval."""
        ...


def kept(draw: Callable) -> Callable:
    """A data set's method of one name that draws or reads each answer once."""

    @functools.wraps(draw)
    def answer(self, name: str) -> CaptionedImages:
        answers = self.__dict__.setdefault(f"_kept_{draw.__name__}", {})
        if name not in answers:
            answers[name] = draw(self, name)
        return answers[name]

    return answer


def one_of(what: str, value: str, allowed) -> str:
    """The value, if it is allowed; else a ValueError that lists what is."""
    if value not in allowed:
        raise ValueError(f"{what}: {value!r} is none of {', '.join(allowed)}")
    return value


def _check_labels(labels: Tensor) -> None:
    if labels.numel() and int(labels.min()) < -1:
        raise ValueError(f"labels: -1 (does not apply) or a value's index expected, got {int(labels.min())}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"

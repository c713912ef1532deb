"""Scenes of one or two coloured shapes: the vocabulary, what a scene is, and how scenes are drawn at random.

Objects come in reading order: object 1 is the only one, the upper one or the left one. A composition is a
(colour, shape) pair, numbered colour * len(SHAPES) + shape. A scene also decides which of its attributes its
captions mention, so that all captions of one content agree; colours, shapes and the relation are always
mentioned.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

LAYOUTS = ("single", "vertical", "horizontal")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = ("small", "large")
POSITIONS = (
    "centre", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right",
)  # fmt: skip
BACKGROUNDS = ("black", "grey", "striped", "checked", "dotted")

HEADS = {"layout": LAYOUTS, "colour_1": COLOURS, "shape_1": SHAPES, "colour_2": COLOURS, "shape_2": SHAPES}

# No training picture shows these. Each colour misses one shape, each shape one or two colours.
HELDOUT = (
    "red triangle", "green ring", "blue diamond", "yellow square",
    "purple circle", "orange cross", "cyan triangle", "white diamond",
)  # fmt: skip

# How often captions mention what they may leave out. Pairs say less, or every caption would be unique.
MENTIONS = {
    "size": 0.5,
    "position": 0.5,
    "background of a single shape": 1 / 3,
    "background of a pair": 1 / 6,
}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """n scenes as indices into the vocabulary; -1 where it does not apply."""

    layout: Int64[Tensor, " n"]
    composition: Int64[Tensor, "n 2"]
    size: Int64[Tensor, "n 2"]
    position: Int64[Tensor, " n"]
    background: Int64[Tensor, " n"]
    says_size: Bool[Tensor, " n"]
    says_position: Bool[Tensor, " n"]
    says_background: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def colour(self) -> Int64[Tensor, "n 2"]:
        return self.composition.where(self.composition < 0, self.composition // len(SHAPES))

    @property
    def shape(self) -> Int64[Tensor, "n 2"]:
        return self.composition.where(self.composition < 0, self.composition % len(SHAPES))

    def described(self) -> "Scenes":
        """What a reader of the captions knows: -1 where nothing is said."""
        silent = torch.tensor(-1)
        return dataclasses.replace(
            self,
            size=self.size.where(self.says_size[:, None], silent),
            position=self.position.where(self.says_position, silent),
            background=self.background.where(self.says_background, silent),
        )

    def content(self) -> Int64[Tensor, " n"]:
        """One number per described scene: the digits of what is said, in mixed radix."""
        said = self.described()
        digits = [
            (said.layout, len(LAYOUTS)),
            *[(said.composition[:, i], len(COLOURS) * len(SHAPES)) for i in (0, 1)],
            *[(said.size[:, i], len(SIZES)) for i in (0, 1)],
            (said.position, len(POSITIONS)),
            (said.background, len(BACKGROUNDS)),
        ]
        number = torch.zeros_like(self.layout)
        for digit, values in digits:
            number = number * (values + 1) + (digit + 1)
        return number

    def labels(self) -> Int64[Tensor, "n 5"]:
        """The columns of HEADS."""
        colour, shape = self.colour, self.shape
        return torch.stack([self.layout, colour[:, 0], shape[:, 0], colour[:, 1], shape[:, 1]], dim=1)


def composition_index(name: str) -> int:
    """ "red circle" -> its number."""
    colour, _, shape = name.partition(" ")
    if colour not in COLOURS or shape not in SHAPES:
        raise ValueError(
            f"heldout: {name!r} is no composition; a colour ({', '.join(COLOURS)}) and a shape "
            f"({', '.join(SHAPES)}) expected, such as 'red circle'"
        )
    return COLOURS.index(colour) * len(SHAPES) + SHAPES.index(shape)


def balanced(n: int, values: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """0..values-1, each as often as any other (up to one), in random order."""
    return (torch.arange(n) % values)[torch.randperm(n, generator=generator)]


def draw_scenes(
    n: int, pairs: float, one: Sequence[int], other: Sequence[int], generator: torch.Generator
) -> Scenes:
    """A share `pairs` of the scenes shows two different compositions, one of each list, in either order.

    The rest shows one shape, from the list `one`.
    """
    one, other = torch.tensor(one), torch.tensor(other)
    is_pair = torch.zeros(n, dtype=torch.bool)
    is_pair[torch.randperm(n, generator=generator)[: round(n * pairs)]] = True
    layout = torch.where(is_pair, 1 + balanced(n, 2, generator), 0)

    a = one[balanced(n, len(one), generator)]
    place = balanced(n, len(other), generator)
    b = torch.where(other[place] == a, other[(place + 1) % len(other)], other[place])
    exchange = is_pair & (balanced(n, 2, generator) == 1)
    first, second = torch.where(exchange, b, a), torch.where(exchange, a, b)

    absent = torch.tensor(-1)
    size = torch.stack([balanced(n, len(SIZES), generator) for _ in range(2)], dim=1)
    position = balanced(n, len(POSITIONS), generator)
    background = balanced(n, len(BACKGROUNDS), generator)
    u_size, u_position, u_background = torch.rand(3, n, generator=generator)
    background_mentions = torch.where(
        is_pair, MENTIONS["background of a pair"], MENTIONS["background of a single shape"]
    )
    return Scenes(
        layout=layout,
        composition=torch.stack([first, second.where(is_pair, absent)], dim=1),
        size=torch.stack([size[:, 0], size[:, 1].where(is_pair, absent)], dim=1),
        position=position.where(~is_pair, absent),
        background=background,
        says_size=u_size < MENTIONS["size"],
        says_position=~is_pair & (u_position < MENTIONS["position"]),
        says_background=u_background < background_mentions,
    )

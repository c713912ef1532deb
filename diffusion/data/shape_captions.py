"""Scenes in words. A caption is a frame around a clause: "a picture of {a red circle on the left}, on {a
black background}".

Every frame and clause names all that its scene mentions and nothing else, so captions of one content are
interchangeable and two contents never share a caption.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from diffusion.data.shape_scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scenes
from diffusion.data.wording import with_article

# In the order of POSITIONS.
PLACES = (
    ("in the centre", "in the middle"),
    ("on the left", "on the left side"),
    ("on the right", "on the right side"),
    ("at the top", "near the top"),
    ("at the bottom", "near the bottom"),
    ("in the top left corner", "at the top left"),
    ("in the top right corner", "at the top right"),
    ("in the bottom left corner", "at the bottom left"),
    ("in the bottom right corner", "at the bottom right"),
)

# In the order of LAYOUTS: a is the only, upper or left object.
CLAUSES = (
    ("{a}",),
    ("{a} above {b}", "{b} below {a}", "{a} with {b} below it", "{b} with {a} above it"),
    (
        "{a} to the left of {b}",
        "{b} to the right of {a}",
        "{a} with {b} to its right",
        "{b} with {a} to its left",
    ),
)

# (without, with) the background.
FRAMES = (
    ("{thing}", "{thing}, on {ground}"),
    ("a picture of {thing}", "a picture of {thing}, on {ground}"),
    ("an image of {thing}", "an image of {thing}, on {ground}"),
    ("a drawing of {thing}", "on {ground}, {thing}"),
    ("there is {thing}", "on {ground} there is {thing}"),
    ("this is {thing}", "this is {thing}, on {ground}"),
)
# New sentences of known words: what changes is the wording alone.
UNSEEN_FRAMES = (
    ("it is {thing}", "it is {thing}, on {ground}"),
    ("this image is of {thing}", "this image is of {thing}, on {ground}"),
    ("in this drawing there is {thing}", "in this drawing there is {thing}, on {ground}"),
)


def all_captions(scenes: Scenes, frames: Sequence[tuple[str, str]] = FRAMES) -> list[list[str]]:
    """Every caption of each scene."""
    said, colours, shapes = scenes.described(), scenes.colour.tolist(), scenes.shape.tolist()
    columns = (said.layout, said.size, said.position, said.background)
    texts = []
    for layout, size, position, background, colour, shape in zip(
        *(c.tolist() for c in columns), colours, shapes
    ):
        a, b = (_object(*of) for of in zip(size, colour, shape))
        clauses = [clause.format(a=a, b=b) for clause in CLAUSES[layout]]
        if position >= 0:
            clauses = [f"{clause} {place}" for clause in clauses for place in PLACES[position]]
        patterns = [frame[background >= 0] for frame in frames]
        ground = f"{with_article(BACKGROUNDS[background])} background"
        texts.append(
            [pattern.format(thing=clause, ground=ground) for clause in clauses for pattern in patterns]
        )
    return texts


def caption_table(
    scenes: Scenes, frames: Sequence[tuple[str, str]], k: int, generator: torch.Generator
) -> tuple[tuple[str, ...], Int64[Tensor, "n k"]]:
    """k different captions for each scene, drawn at random, as a table without repeats and its rows."""
    table: dict[str, int] = {}
    rows = []
    picks = torch.rand(len(scenes), k, generator=generator, dtype=torch.float64).tolist()
    for captions, pick in zip(all_captions(scenes, frames), picks):
        drawn = [captions.pop(int(u * len(captions))) for u in pick]
        rows.append([table.setdefault(caption, len(table)) for caption in drawn])
    return tuple(table), torch.tensor(rows, dtype=torch.int64).reshape(len(scenes), k)


def _object(size: int, colour: int, shape: int) -> str:
    """ "a small red circle"; the size only where it is said, nothing for an absent object."""
    if shape < 0:
        return ""
    sized = f"{SIZES[size]} " if size >= 0 else ""
    return with_article(f"{sized}{COLOURS[colour]} {SHAPES[shape]}")

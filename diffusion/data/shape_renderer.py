"""Scenes as pictures. A shape is a signed distance d in pixels (negative inside); its coverage clamp(1/2 - d,
0, 1) is the antialiased edge, and pictures are painted back to front: background, object 1, object 2.

Lengths are in units of a 32 x 32 picture and scale with image_size. What a scene leaves open (where exactly,
how big exactly, which shade) is drawn from the generator for all pictures at once, so chunks only bound the
memory.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion.data.shape_scenes import BACKGROUNDS, SHAPES, Scenes

UNIT = 32  # the side of the picture that the lengths below refer to
CHUNK = 2**20  # pixels painted together: tens of MB

# In the order of COLOURS.
RGB = (
    (220, 35, 40), (40, 175, 60), (45, 85, 235), (245, 225, 50),
    (150, 55, 195), (250, 135, 25), (60, 210, 225), (245, 245, 245),
)  # fmt: skip
# In the order of BACKGROUNDS: the tone and, in a pattern, that of its marks. Dark and without hue.
TONES = ((10, 10), (105, 105), (20, 46), (20, 46), (20, 54))
COLOUR_JITTER = 8
TONE_JITTER = 8

# Diameters, in the order of SIZES: two large shapes and a gap must fit into one picture.
SINGLE_DIAMETERS = ((9.5, 10.5), (15.0, 17.0))
PAIR_DIAMETERS = ((9.5, 10.2), (13.0, 14.0))
MARGIN = 0.5
GAP = 2.0

# In the order of POSITIONS: the direction in which a single shape leaves the centre.
DIRECTIONS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1))


def render(scenes: Scenes, image_size: int, generator: torch.Generator) -> UInt8[Tensor, "n 3 h w"]:
    """One picture per scene."""
    n = len(scenes)
    diameter, centre = _geometry(scenes, generator)
    shades = torch.rand(n, 3, 3, generator=generator) * 2 - 1  # object 1, object 2, background
    paint = torch.tensor(RGB)[scenes.colour] + COLOUR_JITTER * shades[:, :2]
    tones = torch.tensor(TONES)[scenes.background, :, None] + TONE_JITTER * shades[:, 2:, :1]
    phase, turn = torch.rand(n, 2, generator=generator), torch.rand(n, generator=generator)

    scale = image_size / UNIT
    axis = (torch.arange(image_size) + 0.5) / scale
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8)
    chunk = max(1, CHUNK // image_size**2)
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        marks = _pattern(scenes.background[part], phase[part], turn[part], x, y, scale)
        canvas = tones[part, :1, :, None].lerp(tones[part, 1:, :, None], marks[:, None])
        for i in (0, 1):
            cover = _coverage(scenes.shape[part, i], centre[part, i], diameter[part, i] / 2, x, y, scale)
            canvas = canvas.lerp(rearrange(paint[part, i], "n c -> n c 1 1"), cover[:, None])
        images[part] = canvas.round_().clamp_(0, 255)
    return images


def _geometry(
    scenes: Scenes, generator: torch.Generator
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"]]:
    """Diameters and centres (x, y). An absent second object gets some; nobody paints it."""
    n = len(scenes)
    u_diameter, u_aside, u_along = torch.rand(3, n, 2, generator=generator)
    is_single = scenes.layout == 0
    ranges = torch.stack([torch.tensor(PAIR_DIAMETERS), torch.tensor(SINGLE_DIAMETERS)])
    low, high = ranges[is_single.long()[:, None], scenes.size].unbind(-1)
    diameter = low + (high - low) * u_diameter

    # One shape: up to 1.5 off the centre, or up to 1.5 short of the edge.
    room = UNIT / 2 - MARGIN - diameter[:, :1] / 2
    direction = torch.tensor(DIRECTIONS, dtype=torch.float32)[scenes.position]
    jitter = 1.5 * torch.where(direction == 0, 2 * u_aside - 1, -direction * u_aside)
    single = UNIT / 2 + direction * room + jitter

    # Two shapes: the free length lies before, between and behind them; across it they move up to 3.
    free = UNIT - 2 * MARGIN - GAP - diameter.sum(1)
    before, until = (free[:, None] * u_along.sort(dim=1).values).unbind(1)
    first = MARGIN + before + diameter[:, 0] / 2
    second = MARGIN + GAP + until + diameter[:, 0] + diameter[:, 1] / 2
    along = torch.stack([first, second], dim=1)
    across = (UNIT / 2 - MARGIN - diameter / 2).clamp(max=3) * (2 * u_aside - 1) + UNIT / 2
    horizontal = torch.stack([along, across], dim=2)

    is_horizontal = rearrange(scenes.layout == 2, "n -> n 1 1")
    pair = torch.where(is_horizontal, horizontal, horizontal.flip(2))
    return diameter, torch.where(is_single[:, None, None], single[:, None], pair)


def _coverage(shape, centre, radius, x, y, scale: float) -> Float[Tensor, "n h w"]:
    """How much of each pixel the shape covers; none where shape is -1."""
    cover = torch.zeros(len(shape), *x.shape)
    for i, name in enumerate(SHAPES):
        rows = (shape == i).nonzero().squeeze(1)
        r = radius[rows, None, None]
        dx = x - centre[rows, 0, None, None]
        dy = y - centre[rows, 1, None, None]
        cover[rows] = _edge(DISTANCES[name](dx, dy, r) * scale)
    return cover


def _pattern(background, phase, turn, x, y, scale: float) -> Float[Tensor, "n h w"]:
    """Where the marks of the pattern lie: 1 on a stripe, check or dot."""
    marks = torch.zeros(len(background), *x.shape)
    for name, distance in PATTERNS.items():
        rows = (background == BACKGROUNDS.index(name)).nonzero().squeeze(1)
        dx = x + 8 * phase[rows, 0, None, None]
        dy = y + 8 * phase[rows, 1, None, None]
        marks[rows] = _edge(distance(dx, dy, turn[rows, None, None]) * scale)
    return marks


def _edge(distance: Tensor) -> Tensor:
    return (0.5 - distance).clamp_(0, 1)


def _from_lattice(u: Tensor, period: float) -> Tensor:
    """Distance to the nearest of the lines at half periods."""
    return (u.remainder(period) - period / 2).abs()


def _triangle(x, y, r):
    # Apex (0, -r), feet (+-r, r): the foot line and the two flanks of slope 2.
    return torch.maximum(y - r, (2 * x.abs() - y - r) / math.sqrt(5))


def _cross(x, y, r):
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.minimum(x, y) - 0.33 * r, torch.maximum(x, y) - r)


def _stripes(x, y, turn):
    angle = (turn * 4).floor() * (math.pi / 4)
    return _from_lattice(x * angle.cos() + y * angle.sin(), 6.0) - 1.5


def _checks(x, y, turn):
    # Exclusive or of two stripe patterns: the product of their signed distances has the sign of the field.
    side = 5.0
    u, v = _from_lattice(x, 2 * side) - side / 2, _from_lattice(y, 2 * side) - side / 2
    return torch.minimum(u.abs(), v.abs()) * -(u * v).sign()


def _dots(x, y, turn):
    return torch.hypot(_from_lattice(x, 6.0), _from_lattice(y, 6.0)) - 1.6


DISTANCES = {
    "circle": lambda x, y, r: torch.hypot(x, y) - r,
    "square": lambda x, y, r: torch.maximum(x.abs(), y.abs()) - 0.92 * r,
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda x, y, r: (torch.hypot(x, y) - 0.74 * r).abs() - 0.26 * r,
    "diamond": lambda x, y, r: (x.abs() + y.abs() - r) / math.sqrt(2),
}
PATTERNS = {"striped": _stripes, "checked": _checks, "dotted": _dots}

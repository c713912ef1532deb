"""Pictures for people: a grid with a prompt beside each row, and the parameters of a picture inside its PNG."""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

LABEL, GAP, LEAST = 220, 2, 64  # pixels of a labelled grid: its texts, between pictures, the least of a picture


def to_image(picture: UInt8[Tensor, "c h w"]) -> Image.Image:
    """As a Pillow image."""
    array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def data_url(picture: Image.Image) -> str:
    """As a PNG that stands in the page itself."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def shown_at(size: int) -> int:
    """How large a picture of this size stands in a labelled grid: small ones are enlarged, by a whole number."""
    return size * max(1, -(-LEAST // size))


def labelled(rows: Sequence[tuple[str, UInt8[Tensor, "n c h w"]]], columns: int = 8) -> Image.Image:
    """Each row's text to its left; small pictures are enlarged without smoothing."""
    cell, font = shown_at(rows[0][1].shape[-1]), ImageFont.load_default(size=13)
    lines = [(text if first == 0 else "", pictures[first : first + columns])
             for text, pictures in rows for first in range(0, len(pictures), columns)]
    canvas = Image.new("RGB", (LABEL + columns * (cell + GAP), len(lines) * (cell + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for y, (text, pictures) in enumerate(lines):
        words = "\n".join(textwrap.wrap(text, 30)[: cell // 15])
        draw.text((6, y * (cell + GAP) + cell / 2), words, "black", font=font, anchor="lm")
        for x, picture in enumerate(pictures):
            image = to_image(picture).resize((cell, cell), Image.Resampling.NEAREST)
            canvas.paste(image, (LABEL + x * (cell + GAP), y * (cell + GAP)))
    return canvas


def unlabelled(grid: Image.Image, size: int) -> list[list[Image.Image]]:
    """The pictures of a labelled grid, line by line, at the size that they were drawn at."""
    cell = shown_at(size)
    columns, lines = (grid.width - LABEL) // (cell + GAP), grid.height // (cell + GAP)
    corners = [[(LABEL + x * (cell + GAP), y * (cell + GAP)) for x in range(columns)] for y in range(lines)]
    return [[grid.crop((x, y, x + cell, y + cell)).resize((size, size), Image.Resampling.NEAREST) for x, y in line]
            for line in corners]


def tiled(pictures: UInt8[Tensor, "n c h w"], columns: int) -> UInt8[Tensor, "c i j"]:
    """Pictures row by row; n must fill the rows."""
    return rearrange(pictures, "(r k) c h w -> c (r h) (k w)", k=columns)


def save_png(picture: UInt8[Tensor, "c h w"], path: str | Path, parameters: Mapping[str, object]) -> None:
    """One PNG with its generation parameters as text, in the form that viewers read; {} writes none."""
    info, prompt = PngInfo(), str(parameters.get("prompt", ""))
    rest = {name: value for name, value in parameters.items() if name not in ("prompt", "negative")}
    lines = [prompt, *([f"Negative prompt: {parameters['negative']}"] if parameters.get("negative") else []),
             ", ".join(f"{key}: {value}" for key, value in rest.items())]
    if parameters:
        info.add_itxt("parameters", "\n".join(lines))
    to_image(picture).save(path, "PNG", pnginfo=info)

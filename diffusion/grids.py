"""Pictures for people: a grid with a prompt beside each row, and the parameters of a picture inside its PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor


def to_image(picture: UInt8[Tensor, "c h w"]) -> Image.Image:
    """As a Pillow image."""
    array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def labelled(rows: Sequence[tuple[str, UInt8[Tensor, "n c h w"]]], columns: int = 8, least: int = 64) -> Image.Image:
    """Each row's text to its left; small pictures are enlarged to at least `least` pixels, without smoothing."""
    size = rows[0][1].shape[-1]
    zoom, width = max(1, -(-least // size)), 220
    cell, font = size * zoom, ImageFont.load_default(size=13)
    lines = [(text if first == 0 else "", pictures[first : first + columns])
             for text, pictures in rows for first in range(0, len(pictures), columns)]
    canvas = Image.new("RGB", (width + columns * (cell + 2), len(lines) * (cell + 2)), "white")
    draw = ImageDraw.Draw(canvas)
    for y, (text, pictures) in enumerate(lines):
        words = "\n".join(textwrap.wrap(text, 30)[: cell // 15])
        draw.text((6, y * (cell + 2) + cell / 2), words, "black", font=font, anchor="lm")
        for x, picture in enumerate(pictures):
            image = to_image(picture).resize((cell, cell), Image.Resampling.NEAREST)
            canvas.paste(image, (width + x * (cell + 2), y * (cell + 2)))
    return canvas


def tiled(pictures: UInt8[Tensor, "n c h w"], columns: int) -> UInt8[Tensor, "c i j"]:
    """Pictures row by row; n must fill the rows."""
    return rearrange(pictures, "(r k) c h w -> c (r h) (k w)", k=columns)


def save_png(picture: UInt8[Tensor, "c h w"], path: Path, parameters: Mapping[str, object]) -> None:
    """One PNG with its generation parameters as text, in the form that viewers read; {} writes none."""
    info, prompt = PngInfo(), str(parameters.get("prompt", ""))
    rest = {name: value for name, value in parameters.items() if name not in ("prompt", "negative")}
    lines = [prompt, *([f"Negative prompt: {parameters['negative']}"] if parameters.get("negative") else []),
             ", ".join(f"{key}: {value}" for key, value in rest.items())]
    if parameters:
        info.add_itxt("parameters", "\n".join(lines))
    to_image(picture).save(path, pnginfo=info)

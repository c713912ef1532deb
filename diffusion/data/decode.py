"""Encoded pictures -> one uint8 tensor, once. The result can be kept as a .npy file under a name made from
its content.
"""

import functools
import io
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

DECODING = 2  # raised where the same file becomes another picture: it is in the names of what is kept
Prepare = Callable[[Image.Image], Image.Image]


def decode(pictures: Iterable[tuple[str, bytes | Path]], prepare: Prepare) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures as (name for messages, file or bytes). `prepare` makes the final size or raises ValueError."""
    arrays = []
    for name, source in pictures:
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                array = np.asarray(prepare(to_rgb(ImageOps.exif_transpose(image))))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: {error}") from error
        arrays.append(array.transpose(2, 0, 1))
    if not arrays:
        raise ValueError("no pictures to decode")
    return torch.from_numpy(np.stack(arrays))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of integers; what is transparent becomes white, 16-bit grey keeps its upper 8 bits."""
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers, whose range no file tells; save it in 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if image.mode != "I" or grey.max() > 255:
            grey = grey >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def exactly(size: int) -> Prepare:
    """Refuses pictures of another size."""

    def check(image: Image.Image) -> Image.Image:
        if image.size != (size, size):
            raise ValueError(f"the picture is {image.width} x {image.height}, {size} x {size} expected")
        return image

    return check


def crop_and_resize(size: int) -> Prepare:
    """The largest centred square, resampled by Lanczos."""
    return functools.partial(ImageOps.fit, size=(size, size), method=Image.Resampling.LANCZOS)


def cached(
    folder: str | None, name: str, make: Callable[[], UInt8[Tensor, "n 3 h w"]]
) -> UInt8[Tensor, "n 3 h w"]:
    """make(), or what an earlier call of this name left in the folder. Processes may do this at once."""
    if folder is None:
        return make()
    path = Path(folder) / f"{name}.npy"
    try:
        return torch.from_numpy(np.load(path))
    except (FileNotFoundError, EOFError, ValueError):  # not there, or no whole .npy file
        images = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            np.save(file, images.numpy())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return images

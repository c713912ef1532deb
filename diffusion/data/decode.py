"""Encoded pictures -> one uint8 tensor, once. The result can be kept as a .npy file under a name made from
its content.
"""

import functools
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from diffusion.files import atomic

DECODING = 2  # raised where the same file becomes another picture: it is in the names of what is kept of a folder
Prepare = Callable[[Image.Image], Image.Image]


def decode(pictures: Iterable[tuple[str, bytes | Path]], n: int, prepare: Prepare) -> UInt8[Tensor, "n 3 h w"]:
    """n pictures as (name for messages, file or bytes). `prepare` makes the final size or raises ValueError. Memory is
    that of the result."""
    out = None
    for i, (name, source) in enumerate(pictures):
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                array = np.asarray(prepare(to_rgb(ImageOps.exif_transpose(image))))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: {error}") from error
        if out is None:
            out = np.empty((n, 3, *array.shape[:2]), np.uint8)
        if array.shape[:2] != out.shape[2:]:
            (height, width), (h, w) = array.shape[:2], out.shape[2:]
            raise ValueError(f"{name}: {width} x {height} pixels beside {w} x {h}")
        out[i] = array.transpose(2, 0, 1)
    if out is None:
        raise ValueError("no pictures to decode")
    if i + 1 < n:
        raise ValueError(f"{name} was the last of {i + 1} pictures, {n} were to come")
    return torch.from_numpy(out)


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
    """make(), or what an earlier call of this name left in the folder. Of several processes one makes it, the others
    wait and read."""
    if folder is None:
        return make()
    path = Path(folder) / f"{name}.npy"
    if (images := kept(path)) is not None:
        return images
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if (images := kept(path)) is not None:
            return images
        images = make()

        def write(temporary: str) -> None:
            with open(temporary, "wb") as file:
                np.save(file, images.numpy())

        atomic(path, write)
    return images


def kept(path: Path) -> UInt8[Tensor, "n 3 h w"] | None:
    """What the file holds; None where it is not there, or no whole .npy file."""
    try:
        return torch.from_numpy(np.load(path))
    except (FileNotFoundError, EOFError, ValueError):
        return None

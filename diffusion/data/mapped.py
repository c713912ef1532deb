"""Tensors that lie in a safetensors file while they are filled: as large as the disk, whatever the memory.

    8 bytes: length of the header, little endian | the header, JSON | the tensors' bytes, one after the other

What safetensors reads lies in its file, too: memory holds the pages that are in use, and gives them up under pressure.
"""

import json
import math
import os
import struct
from pathlib import Path

import torch
from torch import Tensor

BFLOAT16 = "BF16"  # safetensors' name of it


def mapped(path: str | Path, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """New bfloat16 tensors in a new file; what is written into them is in the file. Raises OSError where the disk has
    not the room."""
    places, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * torch.bfloat16.itemsize
        places[name] = begin, end
    header = json.dumps({name: {"dtype": BFLOAT16, "shape": shapes[name], "data_offsets": place}
                         for name, place in places.items()}).encode()
    header += b" " * (-len(header) % 8)
    start = 8 + len(header)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(start + end)
        if hasattr(os, "posix_fallocate"):  # on a disk that is full later, writing into the file would end the process
            try:
                os.posix_fallocate(file.fileno(), 0, start + end)
            except OSError as error:
                raise OSError(f"{Path(path).parent}: no room for {end / 2**30:.1f} GiB ({error})") from None
    whole = torch.from_file(str(path), shared=True, size=start + end, dtype=torch.uint8)[start:]
    return {name: whole[begin:end].view(torch.bfloat16).view(shapes[name]) for name, (begin, end) in places.items()}

"""Sampling that goes on after an interruption: pictures are files in a folder, and only those that are missing are
drawn.

Picture i depends on (model, prompt, seed, i) only, so it does not matter when, in which batch or on which process it is
drawn, and a folder of the same drawing lends its pictures.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from diffusion import processes
from diffusion.data.decode import exactly
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import chunks, share
from diffusion.evaluation.generation import Picture, drawn
from diffusion.files import atomic
from diffusion.grids import save_png
from diffusion.latent import LatentDiffusion, Sampling


def file_of(folder: Path, i: int) -> Path:
    return folder / f"{i:05}.png"


def missing(folder: Path, n: int) -> list[int]:
    """Which of n pictures are not there yet, as the first process sees it."""
    return processes.from_first([i for i in range(n) if not file_of(folder, i).exists()])


def take_over(folder: Path, n: int, others: Iterable[Path]) -> None:
    """Copy those of n pictures that are missing here and lie in another folder of the same drawing."""
    for other in others:
        for i in range(n):
            source, target = file_of(other, i), file_of(folder, i)
            if source.exists() and not target.exists():
                atomic(target, lambda temporary, source=source: shutil.copyfile(source, temporary))


def draw_missing(model: LatentDiffusion, pictures: Sequence[Picture], sampling: Sampling, folder: Path, *,
                 batch: int = 64, negative: str = "", metadata: bool = True,
                 progress: Callable[[int], None] = lambda done: None) -> None:
    """Write those of the pictures that are not in the folder, each process its share of them.

    metadata  whether a file tells its prompt
    progress(n) is called after each batch with its size.
    """
    todo = missing(folder, len(pictures))
    todo = [todo[k] for k in share(len(todo), processes.rank(), processes.world())]
    batches = drawn(model, [pictures[i] for i in todo], sampling, batch=batch, negative=negative)
    for index, (some, shown) in zip(chunks(todo, batch), batches, strict=True):
        for i, (prompt, seed, k), picture in zip(index, some, shown, strict=True):
            told = {"prompt": prompt, "negative": negative, "Seed": seed, "Index": k} if metadata else {}
            atomic(file_of(folder, i), lambda temporary, told=told, p=picture: save_png(p, temporary, told))
        progress(len(some))
    processes.wait()


def read(folder: Path, n: int, size: int) -> OnDemand:
    """The first n pictures, decoded when they are indexed. Raises ValueError, naming the file, for what is no picture
    of this size."""
    return OnDemand([file_of(folder, i) for i in range(n)], exactly(size), size)

"""The page of an evaluation: one HTML file without links to anything, which opens offline; and the grids on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image

from diffusion.data.on_demand import OnDemand
from diffusion.evaluation.full import Full
from diffusion.evaluation.memorisation import Memorised, Neighbours
from diffusion.grids import data_url, labelled, tiled, to_image

TEMPLATE = Path(__file__).with_name("page.html")
SHOWN = 64  # samples on the page and in the grid


def show(folder: Path, results: dict, full: Full, samples: OnDemand, memory: dict[str, Memorised]) -> None:
    """grid.png and index.html."""
    shown = samples[: min(full.n, SHOWN)]
    columns = min(len(shown), 8)
    to_image(tiled(shown[: len(shown) // columns * columns], columns)).save(folder / "grid.png")
    pairs = {name: (nearest_pairs(full, samples, found.neighbours, "{:05}.png"),
                    nearest_pairs(full, full.data.split("test").images, found.control, "test picture {}"))
             for name, found in memory.items()}
    pictures = [(prompt, to_image(picture)) for prompt, picture in zip(full.prompts, shown)]
    (folder / "index.html").write_text(page(results, pictures, pairs), encoding="utf-8")


def nearest_pairs(full: Full, pictures, found: Neighbours, name: str, rows: int = 12) -> Image.Image:
    """The pictures nearest to a training picture, each with its neighbours behind it."""
    training = full.data.split("train").pick(max(full.training_pictures, full.n), 0).images
    lines = []
    for i in found.distances[:, 0].argsort()[:rows].tolist():
        near, distances = found.index[i], found.distances[i].tolist()
        told = ", ".join(f"{distance:.3g}" for distance in distances)
        lines += [(f"{name.format(i)}: {told}", torch.cat([pictures[i : i + 1], training[near]]))]
    return labelled(lines, columns=1 + found.index.shape[1])


def page(results: Mapping, samples: Sequence[tuple[str, Image.Image]],
         memory: Mapping[str, tuple[Image.Image, Image.Image]]) -> str:
    """samples: prompts, which are anybody's text, and their pictures; memory: for each feature network a grid of
    samples and one of test pictures."""
    render = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    render.globals["inline"] = data_url
    return render.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        results=results, scores=results["scores"], samples=samples, memory=memory)

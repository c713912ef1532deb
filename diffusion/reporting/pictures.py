"""Pictures of the same prompt and the same noise, runs beside each other, out of the grids that runs leave behind.

grid.png holds several pictures of each example prompt, by averaged weights; samples_<step>.png, drawn while training
with sample_every=, one of each, raw weights above and averaged below. Both come from fixed seeds, so picture i of a
prompt begins with the same noise in every run of the same seed and latent shape.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion.grids import data_url, unlabelled
from diffusion.reporting.run import Run

LARGEST = 96     # pixels of a picture on the page
MOST_STEPS = 6   # of previews while training


@dataclasses.dataclass(frozen=True)
class View:
    """What one position of the switches shows. blocks: prompt -> one picture (a data URI) or None for each run."""

    step: str
    weights: str
    blocks: dict[str, list[str | None]]


def views(runs: Sequence[Run]) -> list[View]:
    """The last one is what the finished models draw."""
    steps = sorted({int(file.stem.rpartition("_")[2]) for run in runs for file in previews(run)})
    chosen = [steps[round(i * (len(steps) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)
              ] if len(steps) > MOST_STEPS else steps
    shown = []
    for step in chosen:
        drawn = [preview(run, step) for run in runs]
        for row, weights in enumerate(("raw", "EMA")):
            shown.append(View(f"step {step}", weights, beside([{p: strip([both[row]]) for p, both in one.items()}
                                                               for one in drawn])))
    finished = beside([finals(run) for run in runs])
    return [*shown, *([View("finished", "EMA", finished)] if finished else [])]


def beside(drawn: Sequence[dict[str, str]]) -> dict[str, list[str | None]]:
    """prompt -> each run's picture."""
    prompts = dict.fromkeys(prompt for one in drawn for prompt in one)
    return {prompt: [one.get(prompt) for one in drawn] for prompt in prompts}


def previews(run: Run) -> list[Path]:
    return sorted(run.folder.glob("samples/samples_*.png")) if "example_prompts" in run.facts else []


def preview(run: Run, step: int) -> dict[str, tuple[Image.Image, Image.Image]]:
    """prompt -> its picture by raw and by averaged weights."""
    path = run.folder / "samples" / f"samples_{step:06}.png"
    if path not in previews(run):
        return {}
    with Image.open(path) as grid:
        size = grid.height // 2
        cells = [tuple(grid.crop((x, y, x + size, y + size)) for y in (0, size)) for x in range(0, grid.width, size)]
    return dict(zip(run.facts["example_prompts"], cells))  # previews show the first 16


def finals(run: Run) -> dict[str, str]:
    """prompt -> its pictures in a row."""
    if run.grid is None or "example_prompts" not in run.facts:
        return {}
    with Image.open(run.grid) as grid:
        lines = unlabelled(grid, run.facts["image_size"])
    return {prompt: strip(line) for prompt, line in zip(run.facts["example_prompts"], lines)}


def strip(pictures: Sequence[Image.Image]) -> str:
    """Pictures in a row as a PNG in a data URI; large ones are made smaller."""
    size = min(pictures[0].width, LARGEST)
    gap = max(1, size // 32)
    row = Image.new("RGBA", (len(pictures) * (size + gap) - gap, size))
    for i, picture in enumerate(pictures):
        row.paste(picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS), (i * (size + gap), 0))
    return data_url(row)


def unpaired(runs: Sequence[Run]) -> str | None:
    """Why the runs' pictures do not begin with the same noise; None where they do."""
    for what, values in (("latent shapes", [run.facts["latent_shape"] for run in runs if "latent_shape" in run.facts]),
                         ("seeds", [run.cfg.seed for run in runs])):
        if any(value != values[0] for value in values):
            return f"the noise differs: the runs have {what} {', '.join(map(str, values))}"
    return None

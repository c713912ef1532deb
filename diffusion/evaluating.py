"""The sample command's full evaluation: its folder, what makes its key, and the files it leaves behind.

    <model's folder>/evaluation/<key>/    00000.png ..., grid.png, results.json, index.html

The key is made of what determines the numbers; the same command again says that it is done, or goes on.
"""

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from diffusion import checkpoint, processes
from diffusion.checkpoint import ModelFile
from diffusion.config import TRUSTED, build, name_of, plain
from diffusion.data.hashing import digest
from diffusion.data.on_demand import OnDemand
from diffusion.evaluation import reference
from diffusion.evaluation.features import ClipFeatures, FeatureExtractor
from diffusion.evaluation.full import Full
from diffusion.evaluation.memorisation import Memorised
from diffusion.evaluation.metrics.intervals import GROUPS
from diffusion.evaluation.page import page
from diffusion.evaluation.records import all_scores
from diffusion.evaluation.resumable import take_over
from diffusion.grids import labelled, tiled, to_image
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import fitting_guide, with_guide
from diffusion.scoring import data_of
from diffusion.stages import relative, writable

log = logging.getLogger(__name__)
RECIPE = 1  # raised where the same command gives other numbers
SHOWN = 64  # samples on the page and in the grid


def evaluate(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, n: int, command: Sequence[str]) -> Path:
    """Returns the folder. Raises ValueError where there is no feature network, or a reference does not fit."""
    if cfg.prompt is not None or cfg.prompts_file is not None:
        raise ValueError("evaluation=full draws with captions of the test split: it takes neither prompt nor "
                         "prompts_file")
    if n < GROUPS:
        raise ValueError(f"n = {n}: evaluation=full takes at least {GROUPS} pictures, for its intervals")
    asked, data, cache = cfg.evaluation, data_of(file, cfg), Path(cfg.paths.cache)
    extractors = networks(model, cfg)
    given = [reference.load(path) for path in listed(asked.reference)]
    if strangers := {r.extractor for r in given} - {extract.name for extract in extractors}:
        raise ValueError(f"evaluation.reference: features of {', '.join(strangers)}, but the feature networks here are "
                         f"{', '.join(extract.name for extract in extractors)}")
    drawing = drawing_of(file, model, sampling, cfg, data.fingerprint())
    settings = {"n": n, "extractors": {extract.name: extract.hash for extract in extractors},
                "training_pictures": asked.training_pictures, "sensitivity_pictures": asked.sensitivity_pictures,
                "references": [checkpoint.file_hash(Path(path).expanduser()) for path in listed(asked.reference)]}
    key = digest([drawing, settings, RECIPE])[:10]
    home = Path(cfg.out).expanduser() if cfg.out else file.path.parent / "evaluation"
    folder = home / key
    writable(folder)
    if processes.from_first(results_in(folder).get("finished")):
        log.info("finished before, in %s", relative(folder / "results.json"))
        return folder
    began = time.perf_counter()
    results = {"ckpt": str(file.path), **drawing, **settings, "drawing": digest(drawing),
               "command": shlex.join(["python", "sample.py", *command]), "finished": False}
    if processes.rank() == 0:
        take_over(folder, n, [other.parent for other in home.glob("*/results.json") if other.parent != folder
                              and results_in(other.parent).get("drawing") == results["drawing"]])
        write(folder, results)
    processes.wait()
    full = Full(model, data, cache, n, cfg.seed, given, asked.training_pictures, cfg.batch, log.info)
    samples = full.draw(with_guide(sampling, model, cfg.trust), folder, cfg.negative)
    every = [full.sets(extract, samples) for extract in extractors]
    quality, sensitivity = full.quality(), full.sensitivity(asked.sensitivity_pictures)
    if processes.rank() > 0:
        return folder
    scores, memory = all_scores(full, every, quality)
    results |= {"scores": scores, "sensitivity": [dataclasses.asdict(bin) for bin in sensitivity],
                "minutes": (time.perf_counter() - began) / 60, "finished": True}
    show(folder, results, full, samples, memory)
    write(folder, results)
    for name, score in scores.items():
        log.info("%-40s %.4g%s", name, score["value"],
                 "" if score["low"] is None else f"  ({score['low']:.4g} to {score['high']:.4g})")
    log.info("%s, and as a page %s", relative(folder / "results.json"), relative(folder / "index.html"))
    return folder


def networks(model: LatentDiffusion, cfg) -> list[FeatureExtractor]:
    """The model's own CLIP, then those of evaluation.features."""
    own = [] if model.text_encoder is None else [ClipFeatures(model.text_encoder)]
    further = [build(node, (*TRUSTED, *cfg.trust), device=model.device)
               for node in plain(cfg.evaluation.features).values()]
    if not own and not further:
        raise ValueError("evaluation=full measures on features, and this model has no CLIP of its own: name a network "
                         "with evaluation/features=")
    return own + further


def drawing_of(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, fingerprint: str) -> dict:
    """What determines picture i, whatever n is."""
    guide = fitting_guide(sampling, model.latent_shape, cfg.trust)
    return {"model_hash": checkpoint.file_hash(file.path), "data_fingerprint": fingerprint, "seed": cfg.seed,
            "sampler": name_of(sampling.sampler), "discretization": name_of(sampling.discretization),
            "steps": sampling.steps, "guidance": name_of(sampling.guidance), "threshold": sampling.threshold,
            "weights": cfg.weights, "negative": cfg.negative, "precision": model.acceleration.precision,
            "guide_hash": guide and checkpoint.file_hash(guide.path)}


def listed(value) -> list:
    """None, one or several, as a list."""
    value = plain(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def results_in(folder: Path) -> dict:
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, results: dict) -> None:
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    checkpoint.atomic(folder / "results.json", lambda temporary: Path(temporary).write_text(text))


def show(folder: Path, results: dict, full: Full, samples: OnDemand, memory: dict[str, Memorised]) -> None:
    """grid.png and index.html."""
    shown = samples[: min(full.n, SHOWN)]
    columns = min(len(shown), 8)
    to_image(tiled(shown[: len(shown) // columns * columns], columns)).save(folder / "grid.png")
    pairs = {name: nearest_pairs(full, samples, found) for name, found in memory.items()}
    pictures = [(prompt, to_image(picture)) for prompt, picture in zip(full.prompts, shown)]
    (folder / "index.html").write_text(page(results, pictures, pairs), encoding="utf-8")


def nearest_pairs(full: Full, samples: OnDemand, found: Memorised, rows: int = 12) -> Image.Image:
    """The samples nearest to a training picture, each with its neighbours behind it."""
    training = full.data.split("train").pick(max(full.training_pictures, full.n), 0).images
    lines = []
    for i in found.neighbours.distances[:, 0].argsort()[:rows].tolist():
        near, distances = found.neighbours.index[i], found.neighbours.distances[i].tolist()
        told = ", ".join(f"{distance:.3g}" for distance in distances)
        lines += [(f"{i:05}.png: {told}", torch.cat([samples[i : i + 1], training[near]]))]
    return labelled(lines, columns=1 + found.neighbours.index.shape[1])

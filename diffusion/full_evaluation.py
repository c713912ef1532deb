"""The sample command's full evaluation: its folder, what makes its key, and the files it leaves behind.

    <model's folder>/evaluation/<key>/    drawing.json, 00000.png ..., then grid.png, index.html, results.json

The key is made of what determines the numbers, drawing.json holds what determines a picture. The same command again
goes on, or says that it is done.
"""

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from diffusion import processes
from diffusion.checkpoint import ModelFile
from diffusion.config import TRUSTED, build, name_of, plain
from diffusion.data.hashing import digest
from diffusion.evaluation import reference
from diffusion.evaluation.features import ClipFeatures, FeatureExtractor
from diffusion.evaluation.full import Full
from diffusion.evaluation.metrics.intervals import GROUPS
from diffusion.evaluation.page import show
from diffusion.evaluation.records import all_scores
from diffusion.evaluation.reference import Reference
from diffusion.evaluation.resumable import take_over
from diffusion.files import file_hash, write_json
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import fitting_guide, with_guide
from diffusion.paths import relative, writable
from diffusion.scoring import data_of

log = logging.getLogger(__name__)
RECIPE = 5  # raised where the same command gives other numbers


def evaluate(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, n: int, command: Sequence[str]) -> Path:
    """Returns the folder. Raises ValueError where there is no feature network, or a reference does not fit."""
    if n < GROUPS:
        raise ValueError(f"n = {n}: evaluation=full takes at least {GROUPS} pictures, for its intervals")
    asked, data, cache = cfg.evaluation, data_of(file, cfg), Path(cfg.paths.cache)
    extractors = networks(model, cfg)
    given = references(extractors, cfg)
    drawing = drawing_of(file, model, sampling, cfg, data.fingerprint())
    settings = {"n": n, "extractors": {extract.name: extract.hash for extract in extractors},
                "training_pictures": asked.training_pictures, "sensitivity_pictures": asked.sensitivity_pictures,
                "references": [file_hash(Path(path).expanduser()) for path in listed(asked.reference)]}
    key = digest([drawing, settings])[:10]
    home = Path(cfg.out).expanduser() if cfg.out else file.path.parent / "evaluation"
    folder = home / key
    writable(folder, "out")
    if processes.from_first((folder / "results.json").exists()):
        log.info("finished before, in %s", relative(folder / "results.json"))
        return folder
    began = time.perf_counter()
    if processes.rank() == 0:
        take_over(folder, n, [other.parent for other in home.glob("*/drawing.json")
                              if other.parent != folder and json.loads(other.read_text()) == drawing])
        write_json(folder / "drawing.json", drawing)
    processes.wait()
    full = Full(model, data, cache, n, cfg.seed, given, asked.training_pictures, cfg.batch, log.info)
    full.announce(extractors)
    samples = full.draw(with_guide(sampling, model, cfg.trust), folder, cfg.negative, cfg.metadata)
    every = [full.sets(extract, samples) for extract in extractors]
    quality, sensitivity = full.quality(), full.sensitivity(asked.sensitivity_pictures)
    if processes.rank() > 0:
        return folder
    scores, memory = all_scores(full, every, quality)
    results = {"ckpt": str(file.path), "file": file.path.name, **drawing, **settings,
               "command": shlex.join(["python", "sample.py", *command]),
               "minutes": (time.perf_counter() - began) / 60, "finished": True, "scores": scores,
               "sensitivity": [dataclasses.asdict(bin) for bin in sensitivity]}
    show(folder, results, full, samples, memory)
    write_json(folder / "results.json", results, allow_nan=False)
    for name, score in scores.items():
        log.info("%-40s %.4g%s", name, score["value"],
                 "" if score["low"] is None else f"  ({score['low']:.4g} to {score['high']:.4g})")
    log.info("%s, and as a page %s", relative(folder / "results.json"), relative(folder / "index.html"))
    return folder


def networks(model: LatentDiffusion, cfg) -> list[FeatureExtractor]:
    """The model's own CLIP, then those of evaluation.features, each by its name there."""
    own = [] if model.text_encoder is None else [ClipFeatures(model.text_encoder)]
    nodes = plain(cfg.evaluation.features)
    if ClipFeatures.name in nodes:
        raise ValueError(f"evaluation.features.{ClipFeatures.name}: this name is that of the model's own CLIP")
    further = [build(node, (*TRUSTED, *cfg.trust), name=name, device=model.device) for name, node in nodes.items()]
    if not own and not further:
        raise ValueError("evaluation=full measures on features, and this model has no CLIP of its own: name a network "
                         "with evaluation/features=")
    return own + further


def references(extractors: Sequence[FeatureExtractor], cfg) -> list[Reference]:
    """From evaluation.reference. Raises ValueError where one fits no network."""
    known, found = {extract.name: extract for extract in extractors}, []
    for given in map(reference.load, listed(cfg.evaluation.reference)):
        if given.extractor not in known:
            raise ValueError(f"evaluation.reference: features of {given.extractor}, but the feature networks here are "
                             f"{', '.join(known)}")
        given.check(known[given.extractor])
        found.append(given)
    return found


def drawing_of(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, fingerprint: str) -> dict:
    """What determines picture i, whatever n is."""
    guide = fitting_guide(sampling, model.latent_shape, cfg.trust)
    return {"recipe": RECIPE, "model_hash": file_hash(file.path), "data_fingerprint": fingerprint,
            "seed": cfg.seed, "sampler": name_of(sampling.sampler), "discretization": name_of(sampling.discretization),
            "steps": sampling.steps, "guidance": name_of(sampling.guidance), "threshold": sampling.threshold,
            "weights": cfg.weights, "negative": cfg.negative, "precision": model.acceleration.precision,
            "guide_hash": guide and file_hash(guide.path)}


def listed(value) -> list:
    """None, one or several, as a list."""
    value = plain(value)
    return value if isinstance(value, list) else [] if value is None else [value]

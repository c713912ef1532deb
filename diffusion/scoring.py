"""The sample command's scores: how far samples lie from the test split, and how probable the model holds that split."""

import logging
from pathlib import Path

import torch

from diffusion import processes
from diffusion.acceleration import choose
from diffusion.checkpoint import ModelFile
from diffusion.config import TRUSTED, build, check, name_of, plain
from diffusion.data.batches import positions
from diffusion.evaluation.features import ClipFeatures
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.evaluation.likelihood import likelihood_scores
from diffusion.evaluation.scores import frechet_scores
from diffusion.files import write_json
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import load_model, with_guide
from diffusion.paths import relative
from diffusion.progress import progress

log = logging.getLogger(__name__)


def data_of(file: ModelFile, cfg):
    """The data set that the model was trained on, or another, with a warning."""
    node = dict(file.facts["data"])
    if cfg.data.source is not None:
        node["source"] = cfg.data.source
    if "cache" in node:  # not that of the machine it was trained on
        node["cache"] = cfg.paths.cache
    check({"data": node}, trusted := ("diffusion.data", *cfg.trust))
    data = build(node, trusted)
    if data.fingerprint() != file.facts["data_fingerprint"]:
        log.warning("this is not the data that the model was trained on: fingerprint %s, the model's %s",
                    data.fingerprint(), file.facts["data_fingerprint"])
    return data


def frechet(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, n: int, out: Path) -> Path:
    """Frechet distance of n samples, with captions of the test split, to that split."""
    if model.text_encoder is None:
        raise ValueError("evaluation=frechet compares features of the CLIP inside the model file; this model has none")
    data = data_of(file, cfg)
    test = data.split("test")
    rows = positions(len(test), 0, n, cfg.seed)  # in random order: files may lie class by class
    prompts = [test.captions[i] for i in test.caption_ids[rows, 0].tolist()]
    guided = with_guide(sampling, model, cfg.trust)
    with progress(n, "samples") as update:
        pictures = generate_many(model, pictures_of(prompts, cfg.seed), guided, batch=cfg.batch,
                                 negative=cfg.negative, progress=update)
    scores = frechet_scores(pictures, model, data, [ClipFeatures(model.text_encoder)], Path(cfg.paths.cache), cfg.seed,
                            log.info)
    results = {"ckpt": str(file.path), "n": n, "seed": cfg.seed, "sampler": name_of(sampling.sampler),
               "discretization": name_of(sampling.discretization), "steps": sampling.steps,
               "guidance": name_of(sampling.guidance), "threshold": sampling.threshold, "weights": cfg.weights,
               "frechet": scores, "data_fingerprint": data.fingerprint()}
    return written(results, out)


def likelihood(file: ModelFile, cfg, device: torch.device, n: int, out: Path) -> Path:
    """Bits per dimension of n pictures of the test split, each with its own caption; writes results.json.

    precision=auto is float32. Raises ValueError for options that have no meaning here, and where the split has fewer
    pictures.
    """
    refuse_what_has_no_meaning(cfg)
    asked = plain(cfg.evaluation.likelihood)
    methods = {name: build(node, (*TRUSTED, *cfg.trust)) for name, node in asked.items() if node is not None}
    if not methods:
        raise ValueError("evaluation.likelihood: bound and ode are both null, there is nothing to do")
    data = data_of(file, cfg)
    test = data.split("test")
    if n > len(test):
        raise ValueError(f"n = {n}, but the test split of {type(data).__name__} has {len(test)} pictures")
    model = load_model(file, cfg.weights, cfg.text_encoder.path).to(device)
    model.accelerate(choose("32" if cfg.precision == "auto" else cfg.precision, False, device))
    with progress(n * len(methods), "likelihood") as update:
        scores = likelihood_scores(model, data.split("train").pick(n, cfg.seed), test.pick(n, cfg.seed), methods,
                                   cfg.seed, batch=cfg.batch, say=log.info, progress=update)
    results = {"ckpt": str(file.path), "n": n, "seed": cfg.seed, "weights": cfg.weights,
               "precision": model.acceleration.precision, "data_fingerprint": data.fingerprint(),
               "likelihood": {name: score | {"method": asked[name]} for name, score in scores.items()}}
    return written(results, out)


def written(results: dict, out: Path) -> Path:
    """The folder, with results.json in it, which the first process writes."""
    if processes.rank() == 0:
        write_json(out / "results.json", results)
    log.info("%s", relative(out / "results.json"))
    return out


def refuse_what_has_no_meaning(cfg) -> None:
    """Nothing is drawn from the model, and captions are not guided."""
    names = "prompt", "prompts_file", "steps", "sampler", "discretization", "threshold"
    given = [name for name in names if cfg.get(name) is not None]
    given += ["negative"] if cfg.negative else []
    given += [f"guidance.{name}" for name, value in (plain(cfg.guidance) or {}).items() if value is not None]
    if given:
        raise ValueError(f"evaluation=likelihood takes no {', '.join(given)}: it scores pictures of the test split "
                         "with their own captions and without guidance. Its settings are evaluation.likelihood.bound.* "
                         "and evaluation.likelihood.ode.*")

"""The sample command's scores that need no samples: how probable a model holds test pictures to be."""

import json
import logging
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion.acceleration import choose
from diffusion.assembly import load_model
from diffusion.checkpoint import ModelFile
from diffusion.config import TRUSTED, build, plain
from diffusion.evaluation.likelihood import likelihood_scores
from diffusion.stages import relative

log = logging.getLogger(__name__)


def data_of(file: ModelFile, cfg):
    """The data set that the model was trained on."""
    node = dict(file.facts["data"])
    if cfg.data.source is not None:
        node["source"] = cfg.data.source
    return build(node, ("diffusion.data", *cfg.trust))


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
    with tqdm(total=n * len(methods), unit="picture", disable=None) as bar:
        scores = likelihood_scores(model, data.split("train").pick(n, cfg.seed), test.pick(n, cfg.seed), methods,
                                   cfg.seed, batch=cfg.batch, say=log.info, progress=bar.update)
    results = {"ckpt": str(file.path), "n": n, "seed": cfg.seed, "weights": cfg.weights,
               "precision": model.acceleration.precision, "data_fingerprint": data.fingerprint(),
               "likelihood": {name: score | {"method": asked[name]} for name, score in scores.items()}}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
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

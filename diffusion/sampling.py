"""The sample command: a model file and prompts in, PNGs and a labelled grid out; or a score.

Picture i of a prompt depends on (model, prompt, seed, i) only: not on the batch, the number asked for or the device,
up to rounding.
"""

import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import ListConfig, OmegaConf

from diffusion import checkpoint, processes, scoring
from diffusion.acceleration import choose
from diffusion.checkpoint import ModelFile
from diffusion.config import TRUSTED, build, check, key_in, miscounted, name_of, plain
from diffusion.data.pictures import chunks, share
from diffusion.evaluation.generation import drawn, pictures_of
from diffusion.files import file_hash
from diffusion.full_evaluation import evaluate
from diffusion.grids import labelled, save_png
from diffusion.guidance import autoguidance, cfg_pp, classifier_free
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import load_model, with_guide
from diffusion.memory import keep_freed_memory
from diffusion.paths import relative, writable
from diffusion.progress import progress

log = logging.getLogger(__name__)
IN_GRID = 1024  # pictures that stand in a grid at most


def main(cfg, command: Sequence[str] = ()) -> Path:
    """Returns the folder that was written. `command` is what was typed, for the record."""
    keep_freed_memory()
    check({**plain(cfg), "guidance": asked_of_guidance(cfg)}, (*TRUSTED, *cfg.trust))
    if cfg.get("evaluation") and cfg.evaluation.judge:
        raise ValueError("evaluation=judged needs a judge, which train.py trains; sample.py takes evaluation=frechet, "
                         "evaluation=likelihood or evaluation=full")
    scored = bool(cfg.get("evaluation") and cfg.evaluation.samples)
    n = cfg.n if cfg.n is not None else cfg.evaluation.samples if scored else 4
    if wrong := miscounted({"n": n, "batch": cfg.batch}):
        raise ValueError("\n  ".join(wrong))
    processes.start()
    if processes.rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise ValueError("ckpt=FILE is missing: a model file, or a run's folder")
    file = checkpoint.load(cfg.ckpt, "latent_diffusion", cfg.trust)
    device = device_named(cfg.device)
    if scored and any(key_in(override) == "evaluation.seed" for override in command):
        raise ValueError("evaluation.seed is train.py's; here seed= names the prompts and the pictures")
    if scored and "likelihood" in cfg.evaluation:
        if processes.world() > 1:
            raise ValueError("evaluation=likelihood works in one process")
        return scoring.likelihood(file, cfg, device, n, folder_of(cfg))
    if scored and (cfg.prompt is not None or cfg.prompts_file is not None):
        raise ValueError("an evaluation draws with captions of the test split: it takes neither prompt nor "
                         "prompts_file")
    sampling = sampling_from(file, cfg)
    prompts = [] if scored else processes.by_first(lambda: prompts_from(cfg, "text_encoder" in file.parts))
    model = load_model(file, cfg.weights, cfg.text_encoder.path).to(device)
    model.accelerate(choose(cfg.precision, False, device))
    log.info("%s: %s, %s, %d steps, %s%s", relative(file.path), weights_of(file, cfg.weights),
             name_of(sampling.sampler), sampling.steps, name_of(sampling.guidance),
             "" if sampling.threshold is None else f", threshold {sampling.threshold}")
    if processes.rank() == 0:
        warn(file, sampling, model, prompts, cfg.negative)
    if scored and "features" in cfg.evaluation:
        return evaluate(file, model, sampling, cfg, n, command)
    out = folder_of(cfg)
    if scored:
        return scoring.frechet(file, model, sampling, cfg, n, out)
    draw(file, model, sampling, cfg, prompts, n, out)
    return out


def draw(file: ModelFile, model: LatentDiffusion, sampling: Sampling, cfg, prompts: Sequence[str], n: int, out: Path
         ) -> None:
    """n pictures of each prompt, each process its share, each batch in its files before the next is drawn; and a grid
    of as many as one looks at."""
    wanted, guided = pictures_of(prompts, cfg.seed, n), with_guide(sampling, model, cfg.trust)
    settings = {"Steps": sampling.steps, "Sampler": name_of(sampling.sampler), **guidance_of(sampling)}
    origin = {"Model": file.path.parent.name, "Model hash": file_hash(file.path), "Weights": cfg.weights,
              "Discretization": name_of(sampling.discretization),
              "Version": f"diffusion {checkpoint.versions()['diffusion']}"}
    each = min(n, max(IN_GRID // len(prompts), 1))  # of a prompt's pictures, in the grid
    mine, shown = share(len(wanted), processes.rank(), processes.world()), {}
    batches = drawn(model, wanted[mine.start : mine.stop], guided, batch=cfg.batch, negative=cfg.negative)
    with progress(len(mine), "pictures") as update:
        for numbers, (some, pictures) in zip(chunks(mine, cfg.batch), batches, strict=True):
            for number, (prompt, seed, i), picture in zip(numbers, some, pictures, strict=True):
                size = f"{picture.shape[2]}x{picture.shape[1]}"
                told = {"prompt": prompt, "negative": cfg.negative, **settings, "Seed": seed, "Index": i, "Size": size,
                        **origin}
                save_png(picture, out / f"{number:05}.png", told if cfg.metadata else {})
                if number // n < IN_GRID and number % n < each:
                    shown[number] = picture.clone()  # alone: not the batch that it is a view of
            update(len(some))
    shown = {number: picture for some in processes.all_values(shown) for number, picture in some.items()}
    if processes.rank() == 0:
        rows = [(prompt, torch.stack([shown[k * n + i] for i in range(each)]))
                for k, prompt in enumerate(prompts[:IN_GRID])]
        labelled(rows, columns=min(each, 8)).save(out / "grid.png")
    log.info("%d pictures in %s, %s together in %s", len(wanted), relative(out),
             "all" if len(shown) == len(wanted) else f"{len(shown)} of them", relative(out / "grid.png"))


def folder_of(cfg) -> Path:
    """The same on every process: out=, or a new one named by the time, even where several commands begin in one
    second."""
    return processes.by_first(lambda: new_folder(cfg))


def new_folder(cfg) -> Path:
    """out=, or one that was not there before."""
    if cfg.out:
        writable(out := Path(cfg.out).expanduser(), "out")
        return out
    name = time.strftime("samples/%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        out = Path(name if number == 1 else f"{name}_{number}")
        writable(out.parent, "out")
        with contextlib.suppress(FileExistsError):
            out.mkdir()
            return out


def prompts_from(cfg, conditional: bool) -> list[str]:
    """From prompt=, prompts_file= or standard input. Raises ValueError where there is none."""
    prompts = [] if cfg.prompt is None else list(cfg.prompt) if isinstance(cfg.prompt, ListConfig) else [cfg.prompt]
    if cfg.prompts_file is not None:
        if cfg.prompts_file == "-":
            text = sys.stdin.read().removeprefix("\ufeff")
        else:
            text = Path(cfg.prompts_file).expanduser().read_text(encoding="utf-8-sig")
        prompts += [line.strip() for line in text.split("\n") if line.strip()]
    if not conditional:
        if prompts:
            log.warning("this model was trained without text: the prompts are ignored")
        return [""]
    if not prompts:
        raise ValueError("no prompt: give 'prompt=\"...\"', 'prompt=[\"...\",\"...\"]', prompts_file=FILE with one a "
                         "line, or prompts_file=- to read them from standard input")
    prompts = [str(prompt) for prompt in prompts]
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the prompt {prompt!r} came in another encoding than UTF-8 (see the locale: LC_ALL, "
                             "PYTHONUTF8)") from None
    return prompts


def sampling_from(file: ModelFile, cfg) -> Sampling:
    """The model's own choices, changed where the command says so."""
    trusted = (*TRUSTED, *cfg.trust)
    chosen = {name: build(cfg[name], trusted) if cfg.get(name) else file.describe(name)
              for name in ("sampler", "discretization")}
    node = asked_of_guidance(cfg)
    if "_target_" not in node:
        node, trusted = {**file.parts["guidance"], **node}, file.trusted
    check({"guidance": node}, trusted)
    steps = file.facts["sampling_steps"] if cfg.steps is None else cfg.steps
    if wrong := miscounted({"steps": steps}):
        raise ValueError(wrong[0])
    threshold = file.facts.get("threshold") if cfg.threshold is None else cfg.threshold or None
    return Sampling(**chosen, guidance=build(node, trusted), steps=steps, threshold=threshold)


def asked_of_guidance(cfg) -> dict:
    """The chosen guidance, or the keys of the model's own that the command changes."""
    return {name: value for name, value in plain(cfg.guidance).items() if value is not None}


def weights_of(file: ModelFile, weights: str) -> str:
    """ema weights (sigma_rel 0.08) of step 900."""
    average = file.facts.get("ema", {}) if weights == "ema" else {}
    width = f" (sigma_rel {average['sigma_rel']:g})" if "sigma_rel" in average else ""
    return f"{weights} weights{width} of step {average.get('step', file.facts['steps'])}"


def scale_of(sampling: Sampling) -> float:
    """The guidance scale."""
    return sampling.guidance.keywords.get("scale", 1.0)


def guidance_of(sampling: Sampling) -> dict[str, object]:
    """What a picture's parameters say of guidance; viewers know the scale of classifier-free guidance."""
    scale = {"CFG scale": scale_of(sampling)} if sampling.guidance.func is classifier_free else {}
    threshold = {} if sampling.threshold is None else {"Threshold": sampling.threshold}
    return {**scale, "Guidance": name_of(sampling.guidance), **threshold}


def warn(file: ModelFile, sampling: Sampling, model: LatentDiffusion, prompts: list[str], negative: str) -> None:
    """What works, but not as one may expect."""
    guidance, scale = sampling.guidance.func, scale_of(sampling)
    heard = guidance is cfg_pp or (guidance is not autoguidance and scale != 1)  # the null condition, or negative
    if file.facts.get("caption_dropout") == 0 and heard:
        log.warning("%s, but this model was trained with task.caption_dropout=0: it never saw the null condition, so "
                    "this guidance is not meaningful; take guidance=none", name_of(sampling.guidance))
    if negative and not heard:
        log.warning("negative has no effect with %s", name_of(sampling.guidance))
    encoder = model.text_encoder
    for prompt in prompts if encoder is not None else []:
        if (tokens := encoder.token_count(prompt)) > encoder.length:
            log.warning("the prompt %r has %d tokens, %d are read", prompt[:60], tokens, encoder.length)


def device_named(name: str) -> torch.device:
    """auto: CUDA (each process its own), Apple's GPU, or the CPU. Raises ValueError where it is not there."""
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "mps" if mps else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device = {name}: there is no CUDA device here; take device=cpu or device=auto")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"device = {name}: allowed are auto, cpu, cuda, cuda:N and mps") from None

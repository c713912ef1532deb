"""The train command: from a configuration to trained, sampled and scored, in the order

    check -> data -> plan -> parents -> model -> grid of samples -> judge -> scores
"""

import json
import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from diffusion import checkpoint, processes, run_plan, sweeps
from diffusion.acceleration import choose
from diffusion.arithmetic import flop_per_step
from diffusion.assembly import kind_of, sampling_of
from diffusion.config import TRUSTED, as_override, build, check, plain
from diffusion.evaluation.features import ClipFeatures, JudgeFeatures
from diffusion.evaluation.generation import generate_many, of_this_process, pictures_of
from diffusion.evaluation.scores import frechet_scores, judged_right
from diffusion.grids import labelled
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import load_model, with_guide
from diffusion.machine import seconds_per_step
from diffusion.memory import keep_freed_memory
from diffusion.paths import relative, writable
from diffusion.progress import duration, progress
from diffusion.refusals import refuse_early, refuse_numbers
from diffusion.run_folder import alone, logged
from diffusion.runs import GRID_COLUMNS, device_of, quiet, run
from diffusion.stages import Compose, Stage, parent_stage, plan

log = logging.getLogger(__name__)


def main(cfg, choices: dict[str, str | None], overrides: list[str], compose: Compose) -> dict:
    """Returns the content of results.json."""
    began = time.perf_counter()
    quiet()
    keep_freed_memory()
    check(cfg, cfg.trusted)
    processes.start()
    if processes.rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)
    writable(cfg.paths.runs)
    writable(cfg.paths.cache, "paths.cache")
    data = build(cfg.data, cfg.trusted)
    stage = plan(cfg, choices, overrides, compose, data)
    judge = judge_stage(stage, choices, overrides, compose, data)
    for part in [*stage.walk(), *([judge] if judge else [])]:
        check(part.cfg, part.cfg.trusted)
        refuse_numbers(part.cfg)
    refuse_early(stage, data)
    announce(stage, judge, data)
    if processes.rank() == 0:
        sweeps.begin(stage)
    for part in stage.walk():
        run(part, data, began if part is stage else None)
    results = stage.results()
    if kind_of(stage.cfg) == "latent_diffusion":
        with alone(stage), logged(stage):
            results = sampled_and_scored(stage, judge, data, choices)
    if processes.rank() == 0:
        sweeps.record(stage, results)
    return results


def judge_stage(stage: Stage, choices, overrides, compose, data) -> Stage | None:
    """The classifier that scores the samples, where the experiment names one and scoring is on."""
    if not (data.heads and stage.cfg.judged_by and stage.cfg.evaluation.judge and stage.cfg.evaluation.samples):
        return None
    return parent_stage("judge", plain(stage.cfg.judged_by), choices, overrides, compose, data)


def announce(stage: Stage, judge: Stage | None, data) -> None:
    """The plan, with what each stage is expected to take here."""
    log.info("plan:")
    total = 0.0
    for part in [*stage.walk(), *([judge] if judge else [])]:
        budget, left = part.cfg.budget, 0.0
        if not part.done() and not budget:
            flop = flop_per_step(part.cfg, data, processes.world())
            left = part.cfg.steps * seconds_per_step(flop, device_of(stage.cfg))
        state = ("finished" if part.done() else "goes on" if part.goes_on()
                 else f"as many of {part.cfg.steps} steps as fit into {budget}" if budget and part.cfg.at_most
                 else f"as many steps as fit into what is left of {budget}" if budget
                 else f"{part.cfg.steps} steps, about {duration(left)} here")
        total += 0.0 if part is judge else left
        log.info("  %-12s %s  %s%s", part.part, relative(part.folder), state,
                 " (after the samples, to score them)" if part is judge else "")
    if total and not stage.cfg.budget:
        log.info("  %-12s about %s of training until the first pictures", "together", duration(total))
    if kind_of(stage.cfg) == "latent_diffusion":
        schedule = build(stage.cfg.schedule, stage.cfg.trusted)
        log.info("  SNR from %.3g (t = 0.001) to %.3g (t = 1)", schedule.snr(0.001), schedule.snr(1.0))


def sampled_and_scored(stage: Stage, judge: Stage | None, data, choices: Mapping[str, str | None]) -> dict:
    """The grid, the line to type next, then the scores; each only where it is missing or was drawn otherwise."""
    cfg = stage.cfg
    results = processes.from_first(stage.results())
    settings = sampling_settings(cfg)
    grid = stage.folder / "samples" / "grid.png"
    fresh = processes.from_first(results.get("sampling") == settings and grid.exists())
    model = None
    if not fresh:
        began = time.perf_counter()
        model = ready(stage)
        draw_grid(model, data, with_guide(sampling_of(cfg), model, cfg.trusted), cfg.seed, grid)
        minutes = sum(part.results()["stage_minutes"] for part in stage.walk()) if processes.rank() == 0 else 0
        results = {k: v for k, v in results.items() if k not in results.get("scored", [])} | {
            "sampling": settings, "minutes": minutes + (time.perf_counter() - began) / 60, "command": stage.command}
        if processes.rank() == 0:
            stage.write("results.json", results)
    log.info("samples: %s", relative(grid))
    log.info("next: python sample.py ckpt=%s 'prompt=\"%s\"'%s", relative(stage.folder), data.example_prompts[0],
             "".join(f" {override}" for override in drawn_otherwise(stage, choices)))
    asked = plain(cfg.evaluation) | {"judged_by": judge.key if judge else None}
    scored = results.get("evaluation") == asked
    if cfg.evaluation.samples and not (fresh and scored):
        if judge is not None:
            run(judge, data)
        scores = score(stage, judge, data, model or ready(stage)) | {"evaluation": asked}
        results = {k: v for k, v in results.items() if k not in results.get("scored", [])} | scores
        results |= {"scored": sorted(scores), "command": stage.command}
        if processes.rank() == 0:
            stage.write("results.json", results)
    return results


def drawn_otherwise(stage: Stage, choices: Mapping[str, str | None]) -> list[str]:
    """What sample.py has to be told to draw as this command does: packages of one's own, and choices of sampling that
    the model file, which an earlier command may have written, does not hold."""
    cfg, held = stage.cfg, checkpoint.header(stage.model_path)
    told = []
    for group in ("sampler", "discretization", "guidance"):
        node = plain(cfg[group])
        if held["parts"][group] != node:
            told += [f"{group}={choices[group]}"] + [f"++{group}.{name}={as_override(value)}"
                                                     for name, value in node.items() if not name.startswith("_")]
    if held["facts"]["sampling_steps"] != cfg.sampling_steps:
        told.append(f"steps={cfg.sampling_steps}")
    if held["facts"].get("threshold") != cfg.threshold:
        told.append(f"threshold={'false' if cfg.threshold is None else cfg.threshold}")
    parts = json.dumps(held["parts"])
    if own := [package for package in cfg.trusted if package not in TRUSTED and f'"_target_": "{package}.' in parts]:
        told.append(f"trust=[{','.join(own)}]")
    return list(map(shlex.quote, told))


def sampling_settings(cfg) -> dict:
    """What stands beside every score."""
    threshold = {} if cfg.threshold is None else {"threshold": cfg.threshold}
    return {name: plain(cfg[name]) for name in ("sampler", "discretization", "guidance")} | {
        "steps": cfg.sampling_steps, "weights": "ema"} | threshold


def ready(stage: Stage) -> LatentDiffusion:
    """The stage's model on its device."""
    device = device_of(stage.cfg)
    model = load_model(stage.model()).to(device)
    precision = run_plan.read(stage, device).acceleration.precision
    model.accelerate(choose(precision, False, device))
    return model


def draw_grid(model: LatentDiffusion, data, sampling: Sampling, seed: int, path: Path,
              n: int = GRID_COLUMNS) -> None:
    """n pictures of each example prompt."""
    prompts = list(data.example_prompts)
    pictures = generate_many(model, pictures_of(prompts, seed, n), sampling)
    if processes.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        labelled(list(zip(prompts, pictures.split(n), strict=True)), columns=n).save(path)


def score(stage: Stage, judge: Stage | None, data, model: LatentDiffusion) -> dict:
    """Prompts that the samples satisfy, by group, and Frechet distances of those groups that training shows."""
    cfg, seed = stage.cfg, stage.cfg.evaluation.seed
    verdict = judge.model().module("judge").to(model.device) if judge is not None else None
    results, like_training = {}, []
    sampling = with_guide(sampling_of(cfg), model, cfg.trusted)
    groups = [group for group in data.prompt_groups if verdict is not None or not group.startswith("heldout")]
    n = max(cfg.evaluation.samples // len(groups), 1)
    for group in groups:
        prompts = data.prompts(group, n, seed)
        with progress(of_this_process(n), f"{group} samples") as update:
            pictures = generate_many(model, pictures_of(prompts.captions, seed), sampling, progress=update)
        if verdict is not None and prompts.labels.shape[1] and model.text_encoder is not None:
            right = judged_right(verdict, pictures, prompts.labels).float().mean().item()
            name = "class_agreement" if group == "classes" else f"prompts_right_{group}"
            results[name] = right
            log.info("%s: %.1f %% of %d", name, 100 * right, n)
        if not group.startswith("heldout"):
            like_training.append(pictures)
    extractors = [*([JudgeFeatures(verdict)] if verdict is not None else []),
                  *([ClipFeatures(model.text_encoder)] if model.text_encoder is not None else [])]
    distances = frechet_scores(torch.cat(like_training), model, data, extractors, Path(cfg.paths.cache), seed, log.info)
    for extractor, values in distances.items():
        end = "" if extractor == "judge" else f"_{extractor}"
        results[f"frechet{end}"] = values["samples"]
        results[f"frechet_reconstruction{end}"] = values["reconstructions"]
        results[f"frechet_real{end}"] = values["real"]
    if judge is not None:
        results["judge_accuracy"] = judge.results()["accuracy"]
    autoencoder = stage.parents.get("autoencoder")
    if autoencoder is not None:
        results |= {name: autoencoder.results()[name] for name in ("psnr", "ssim")}
    return results | {"frechet_details": distances, "samples_per_group": n}

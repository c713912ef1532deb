"""Carrying out a stage: open its folder, train or go on, and leave a model file and results behind."""

import contextlib
import dataclasses
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from filelock import FileLock, Timeout

from diffusion import budget, checkpoint, processes, snapshots
from diffusion.acceleration import Acceleration, accelerate, choose
from diffusion.assembly import ASSEMBLE, settings_of
from diffusion.callbacks.progress import Progress
from diffusion.callbacks.saving import AtomicCheckpointIO, Interrupted, Saving
from diffusion.callbacks.snapshots import Snapshots
from diffusion.config import build, plain
from diffusion.data.batches import MicroBatches, StepLoader
from diffusion.files import write_text
from diffusion.loggers import loggers_of
from diffusion.machine import has_fast_bf16
from diffusion.memory import peak_gib
from diffusion.paths import relative
from diffusion.progress import duration
from diffusion.stages import Stage, config_yaml, extend_path
from diffusion.training.base import Training
from diffusion.training.finite import LossScaling
from diffusion.training.probe import seconds_per_update

log = logging.getLogger(__name__)
LEFT = ("config.yaml", "plan.yaml", "metrics.csv", "last.ckpt", "model.safetensors", "results.json", "samples",
        "evaluation", "tensorboard", "wandb", snapshots.FOLDER)
LOCK = ".lock"  # held by whoever writes into a run's folder
GRID_COLUMNS = 8  # pictures of each example prompt, at the end


class CannotResume(RuntimeError):
    """resume=must, but there is nothing to go on from."""


def quiet() -> None:
    """Lightning's advertisements and the warnings that do not apply to this loop."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (".*does not have many workers.*", ".*LeafSpec.*", ".*isinstance.*treespec.*", ".*lr_scheduler.step.*",
                 ".*No device id is provided.*", ".*barrier.*"):
        warnings.filterwarnings("ignore", message=text)
    warnings.filterwarnings("ignore", category=FutureWarning)


def device_of(cfg) -> torch.device:
    """The device that trainer.accelerator names."""
    accelerator = cfg.trainer.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator not in ("cpu", "cuda", "gpu"):
        raise ValueError(f"trainer.accelerator = {accelerator}: allowed are auto, cpu and gpu")
    if accelerator in ("cuda", "gpu"):
        rank, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if rank >= count:
            raise ValueError(f"trainer.accelerator = {cfg.trainer.accelerator}, trainer.devices = "
                             f"{cfg.trainer.devices}: {count} CUDA devices are here; take trainer.accelerator=cpu, or "
                             "fewer devices")
        return torch.device("cuda", rank)
    return torch.device(accelerator)


def run(stage: Stage, data, began: float | None = None) -> None:
    """Train a stage unless it is finished. Raises Interrupted, NonFinite.

    began  when the command did, by time.perf_counter: a budget counts from there. None: from now
    """
    done, goes_on = processes.from_first((stage.done(), stage.goes_on()))
    if done:
        log.info("%s: finished before, in %s", stage.part, relative(stage.folder))
        return
    with opened(stage):
        processes.wait()
        train(stage, data, stage.resume_path if goes_on else extend_path(stage.cfg), began)
    if torch.cuda.is_available():  # what was compiled holds the memory of its recordings
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def put_aside(folder: Path) -> None:
    """What a run left in its folder, into before/TIME/ there: it begins anew, and nothing is lost."""
    left = [path for path in map(folder.joinpath, LEFT) if path.exists()]
    if left:
        before = folder / "before" / time.strftime("%Y-%m-%d_%H-%M-%S")
        before.mkdir(parents=True)
        for path in left:
            path.rename(before / path.name)
        log.info("what was in %s is now in %s", relative(folder), relative(before))


@contextlib.contextmanager
def alone(stage: Stage) -> Iterator[None]:
    """While a finished run is drawn and scored: commands that share one wait for each other."""
    if processes.rank() > 0:
        yield
        return
    lock = FileLock(stage.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another command works in %s: this one waits", relative(stage.folder))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def opened(stage: Stage) -> Iterator[None]:
    """The stage's folder, for this run alone, with its configuration and a log file."""
    if processes.rank() > 0:
        with logged(stage, logging.ERROR):
            yield
        return
    stage.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(stage.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"{relative(stage.folder)} is in use by another run of the same configuration") from None
    for leftover in stage.folder.rglob(".*.tmp"):
        leftover.unlink()
    if stage.cfg.resume == "never":
        put_aside(stage.folder)
    write_text(stage.folder / "config.yaml", config_yaml(stage.cfg))
    try:
        with logged(stage):
            yield
    finally:
        lock.release()


@contextlib.contextmanager
def logged(stage: Stage, level: int = logging.NOTSET) -> Iterator[None]:
    """log.txt in the stage's folder: what is said meanwhile from this level on, and the stack of what ends it."""
    handler = logging.FileHandler(stage.folder / "log.txt", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.setLevel(level)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        log.error("%s ended: %s: %s", stage.part, type(error).__name__, error)
        if not isinstance(error, Interrupted):
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "at", (), sys.exc_info()))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def planned(stage: Stage, device: torch.device) -> tuple[Acceleration, bool]:
    """The acceleration that plan.yaml holds, and True; or a first choice for this machine, and False. A plan made for
    another kind of device is ignored."""
    path, asked = stage.folder / "plan.yaml", stage.cfg.compile
    plan = yaml.safe_load(path.read_text()) if path.exists() else {}
    if plan.get("device") != device.type:
        return choose(stage.cfg.precision, asked, device), False
    has_fast_bf16(device)  # asked for what it does besides: where bf16 crashes, it keeps this process from it
    kept = Acceleration(**plan["acceleration"])
    return kept if asked == "auto" else dataclasses.replace(
        kept, compile=bool(asked), graphs=bool(asked) and device.type == "cuda"), True


def ahead(cfg, kept: bool, spent: float) -> dict[str, float]:
    """What `accelerate` weighs compiling against: nothing where it was asked for, or decided before."""
    if cfg.compile != "auto" or kept:
        return {}
    seconds = {} if cfg.budget is None else {"seconds": budget.seconds_of(cfg.budget) - spent}
    passes = {"passes": cfg.steps * cfg.accumulate} if cfg.budget is None or cfg.at_most else {}
    return seconds | passes


def kept_steps(stage: Stage) -> int | None:
    """What a budget came to when the run began."""
    path = stage.folder / "plan.yaml"
    return processes.from_first(yaml.safe_load(path.read_text()).get("steps") if path.exists() else None)


def train(stage: Stage, data, resume_from: Path | None, began: float | None = None) -> None:
    """From an opened folder to results.json."""
    cfg, started = stage.cfg, time.perf_counter()
    began = started if began is None else began
    device = device_of(cfg)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    steps = kept_steps(stage) if cfg.budget is not None else None
    cfg.steps = steps or cfg.steps
    pl.seed_everything(cfg.seed, verbose=False)
    training = assembled(stage, data)
    if stage.cfg.init_from is not None and resume_from is None:
        training.start_from(checkpoint.load(stage.cfg.init_from, training.kind, stage.cfg.trusted))
    acceleration, kept = processes.from_first(planned(stage, device))
    training.place(device, acceleration.uncompiled(device))  # so data are encoded
    pictures, fetch = training.fetcher()
    if not training.automatic_optimization:  # two backward passes through one graph: compiled ones cannot be shared
        acceleration = acceleration.uncompiled(device)
    if cfg.accumulate > 1 or processes.world() > 1:  # gradients that are added to would be overwritten by a replay
        acceleration = dataclasses.replace(acceleration, graphs=False)
    network, example = training.accelerated()
    spent = processes.from_first(time.perf_counter() - began)
    acceleration = accelerate(network, example, acceleration, Path(cfg.paths.cache) / "compiled",
                              **ahead(cfg, kept, spent))
    training.place(device, acceleration)
    if cfg.budget is not None and steps is None:
        drawn = len(data.example_prompts) * GRID_COLUMNS if training.kind == "latent_diffusion" else 0
        update = seconds_per_update(training)
        spent = time.perf_counter() - began
        steps = processes.from_first(
            budget.steps_within(cfg.budget, spent, update, cfg.batch, drawn, cfg.sampling_steps))
        steps = min(steps, cfg.steps) if cfg.at_most else steps
        cfg.steps = training.steps = steps
        log.info("%s: budget = %s, %s of it are over: %d steps fit", stage.part, cfg.budget, duration(spent), steps)
    if processes.rank() == 0:
        stage.write("plan.yaml", {"acceleration": vars(acceleration), "device": device.type,
                                  **({} if steps is None else {"steps": steps})})
    size = sum(p.numel() for p in training.parameters() if p.requires_grad)
    log.info("%s: %s parameters, %d steps of %d, %s on %s, ready in %s", stage.part, f"{size:,}", cfg.steps, cfg.batch,
             acceleration, device.type, duration(time.perf_counter() - started))
    if resume_from is not None:
        log.info("%s: goes on from %s", stage.part, relative(resume_from))
    batches = MicroBatches(pictures, fetch, batch=cfg.batch, steps=cfg.steps, seed=cfg.seed, rank=processes.rank(),
                           world=processes.world(), accumulate=cfg.accumulate)
    loader = StepLoader(batches, lambda: training.updates_done, cfg.workers)
    scaling = [LossScaling("16-mixed", "cuda")] if acceleration.precision == "16-mixed" else []
    callbacks = [Progress(stage.part), *build(cfg.callbacks, cfg.trusted).values(),
                 Snapshots(stage.folder, resume_from and resume_from.parent),
                 Saving(stage.resume_path, cfg.save_minutes,
                        f"the same command{' with resume=auto' if cfg.resume == 'never' else ''}")]
    trainer = build(cfg.trainer, cfg.trusted, max_epochs=1, default_root_dir=str(stage.folder), callbacks=callbacks,
                    accelerator="gpu" if device.type == "cuda" else "cpu", logger=loggers_of(stage),
                    use_distributed_sampler=False, plugins=[AtomicCheckpointIO(), *scaling],
                    accumulate_grad_batches=cfg.accumulate if training.automatic_optimization else 1,
                    **strategy(training))
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # waits for the device; Saving does the same
    try:
        trainer.fit(training, loader, ckpt_path=resume_from)
        if training.updates_done < cfg.steps:
            raise RuntimeError(f"{stage.part}: training ended after {training.updates_done} of {cfg.steps} steps, by a "
                               "callback or an option of the trainer; without that, the same command goes on")
        training.to(device)  # Lightning has moved it to the CPU
        finish(stage, training, data)
    finally:
        close_loggers(trainer)


def strategy(training: Training) -> dict:
    """Gradients are averaged over processes where there are several."""
    if processes.world() == 1:
        return {}
    from pytorch_lightning.strategies import DDPStrategy

    return {"strategy": DDPStrategy(find_unused_parameters=not training.automatic_optimization,
                                    gradient_as_bucket_view=True)}


def assembled(stage: Stage, data) -> Training:
    """The training's objects from the stage's configuration."""
    task = build(stage.cfg.task, stage.cfg.trusted)
    kind = task.func.kind
    parents = {name: parent.model() for name, parent in stage.parents.items()}
    settings = settings_of(stage.cfg, processes.rank(), processes.world())
    return ASSEMBLE[kind](stage.cfg, task, data, parents, settings)


def finish(stage: Stage, training: Training, data) -> None:
    """Model file and results, after the last step."""
    scores = training.finish()
    seconds = training.seconds + time.perf_counter() - training.started
    peak = peak_gib(training.device)
    facts = {"experiment": stage.experiment, "key": stage.key, "steps": stage.cfg.steps, "seed": stage.cfg.seed,
             "sampling_steps": stage.cfg.sampling_steps, "data": plain(stage.cfg.data),
             "data_fingerprint": data.fingerprint(), "metrics": scores, "minutes": seconds / 60,
             "parents": {name: parent.key for name, parent in stage.parents.items()},
             "versions": checkpoint.versions()}
    if processes.rank() == 0:
        training.save(stage.model_path, facts)
        stage.write("results.json", {"finished": True, "experiment": stage.experiment, "key": stage.key,
                                     "steps": stage.cfg.steps, "stage_minutes": seconds / 60, "peak_memory_gib": peak,
                                     "command": stage.command, **scores})
    processes.wait()
    shown = {k: v for k, v in scores.items() if isinstance(v, float)}
    log.info("%s: done in %s%s%s", stage.part, duration(seconds), "" if peak is None else f", {peak:.1f} GiB at most",
             "".join(f", {name} {value:.4g}" for name, value in shown.items()))


def close_loggers(trainer: pl.Trainer) -> None:
    for logger in trainer.loggers:
        logger.finalize("success")
        if type(logger).__name__ == "WandbLogger" and trainer.is_global_zero:
            logger.experiment.finish()

"""Carrying out a stage: open its folder, train or go on, and leave a model file and results behind."""

import dataclasses
import gc
import logging
import os
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

from diffusion import budget, checkpoint, processes, run_plan
from diffusion.assembly import ASSEMBLE, settings_of
from diffusion.callbacks.progress import Progress
from diffusion.callbacks.saving import AtomicCheckpointIO, Saving
from diffusion.callbacks.snapshots import Snapshots
from diffusion.compiling import accelerate
from diffusion.config import build, plain
from diffusion.data.batches import MicroBatches, StepLoader
from diffusion.loggers import loggers_of
from diffusion.memory import peak_gib
from diffusion.paths import relative
from diffusion.progress import duration
from diffusion.run_folder import logged, opened
from diffusion.run_plan import Plan
from diffusion.stages import Stage, extend_path
from diffusion.training.base import Training
from diffusion.training.finite import LossScaling
from diffusion.training.probe import seconds_per_update

log = logging.getLogger(__name__)
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
        with logged(stage):
            train(stage, data, stage.resume_path if goes_on else extend_path(stage.cfg), began)
    if torch.cuda.is_available():  # what was compiled holds the memory of its recordings
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def train(stage: Stage, data, resume_from: Path | None, began: float | None = None) -> None:
    """From an opened folder to results.json."""
    cfg, started = stage.cfg, time.perf_counter()
    device = device_of(cfg)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pl.seed_everything(cfg.seed, verbose=False)
    training = assembled(stage, data)
    if cfg.init_from is not None and resume_from is None:
        training.start_from(checkpoint.load(cfg.init_from, training.kind, cfg.trusted))
    plan = run_plan.read(stage, device)
    training.place(device, plan.acceleration.uncompiled(device))  # so data are encoded
    pictures, fetch = training.fetcher()
    settle(training, stage, plan, started if began is None else began)
    size = sum(p.numel() for p in training.parameters() if p.requires_grad)
    log.info("%s: %s parameters, %d steps of %d, %s on %s, ready in %s", stage.part, f"{size:,}", training.steps,
             cfg.batch, training.acceleration, device.type, duration(time.perf_counter() - started))
    if resume_from is not None:
        log.info("%s: goes on from %s", stage.part, relative(resume_from))
    batches = MicroBatches(pictures, fetch, batch=cfg.batch, steps=training.steps, seed=cfg.seed,
                           rank=processes.rank(), world=processes.world(), accumulate=cfg.accumulate)
    loader = StepLoader(batches, lambda: training.updates_done, cfg.workers)
    trainer = trainer_of(stage, training, resume_from)
    try:
        trainer.fit(training, loader, ckpt_path=resume_from)
        if training.updates_done < training.steps:
            raise RuntimeError(f"{stage.part}: training ended after {training.updates_done} of {training.steps} steps, "
                               "by a callback or an option of the trainer; without that, the same command goes on")
        training.to(device)  # Lightning has moved it to the CPU
        finish(stage, training, data)
    finally:
        close_loggers(trainer)


def settle(training: Training, stage: Stage, plan: Plan, began: float) -> None:
    """Bring the network into its fast setting, and count the steps of a budget; plan.yaml keeps both.

    began  when the budget began, by time.perf_counter
    """
    cfg, device, acceleration = stage.cfg, training.device, plan.acceleration
    if not training.automatic_optimization:  # two backward passes through one graph: compiled ones cannot be shared
        acceleration = acceleration.uncompiled(device)
    if cfg.accumulate > 1 or processes.world() > 1:  # gradients that are added to would be overwritten by a replay
        acceleration = dataclasses.replace(acceleration, graphs=False)
    network, example = training.accelerated()
    spent = processes.from_first(time.perf_counter() - began)
    acceleration = accelerate(network, example, acceleration, Path(cfg.paths.cache) / "compiled",
                              **({} if plan.kept else run_plan.ahead(cfg, spent)))
    training.place(device, acceleration)
    if cfg.budget is not None:
        training.steps = plan.steps or counted(training, stage, began)
    if processes.rank() == 0:
        run_plan.write(stage, acceleration, device, training.steps)


def counted(training: Training, stage: Stage, began: float) -> int:
    """The steps that fit into what is left of a budget, measured."""
    cfg = stage.cfg
    drawn = GRID_COLUMNS * len(training.data.example_prompts) if training.kind == "latent_diffusion" else 0
    update = seconds_per_update(training)
    update, spent = processes.from_first((update, time.perf_counter() - began))
    steps = budget.steps_within(cfg.budget, spent, update, cfg.batch, drawn, cfg.sampling_steps)
    steps = min(steps, cfg.steps) if cfg.at_most else steps
    log.info("%s: budget = %s, %s of it are over: %d steps fit", stage.part, cfg.budget, duration(spent), steps)
    return steps


def trainer_of(stage: Stage, training: Training, resume_from: Path | None) -> pl.Trainer:
    """Lightning's, with what this run saves, says and shows."""
    cfg, cuda = stage.cfg, training.device.type == "cuda"
    scaling = [LossScaling("16-mixed", "cuda")] if training.acceleration.precision == "16-mixed" else []
    callbacks = [Progress(stage.part), *build(cfg.callbacks, cfg.trusted).values(),
                 Snapshots(stage.folder, resume_from and resume_from.parent),
                 Saving(stage.resume_path, cfg.save_minutes,
                        f"the same command{' with resume=auto' if cfg.resume == 'never' else ''}")]
    trainer = build(cfg.trainer, cfg.trusted, max_epochs=1, default_root_dir=str(stage.folder), callbacks=callbacks,
                    accelerator="gpu" if cuda else "cpu", logger=loggers_of(stage), use_distributed_sampler=False,
                    plugins=[AtomicCheckpointIO(), *scaling],
                    accumulate_grad_batches=cfg.accumulate if training.automatic_optimization else 1,
                    **strategy(training))
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # waits for the device; Saving does the same
    return trainer


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
    facts = {"experiment": stage.experiment, "key": stage.key, "steps": training.steps, "seed": stage.cfg.seed,
             "sampling_steps": stage.cfg.sampling_steps, "data": plain(stage.cfg.data),
             "data_fingerprint": data.fingerprint(), "metrics": scores, "minutes": seconds / 60,
             "parents": {name: parent.key for name, parent in stage.parents.items()},
             "versions": checkpoint.versions()}
    if processes.rank() == 0:
        training.save(stage.model_path, facts)
        stage.write("results.json", {"finished": True, "experiment": stage.experiment, "key": stage.key,
                                     "steps": training.steps, "stage_minutes": seconds / 60, "peak_memory_gib": peak,
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

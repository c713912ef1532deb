"""What cannot work is said before anything is trained: names, files, sizes, one step of sampling on a few numbers."""

import logging
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from diffusion import checkpoint, processes
from diffusion.acceleration import choose
from diffusion.assembly import describe, kind_of, sampling_of, text_encoder
from diffusion.checkpoint import ModelFile
from diffusion.conditioning import Conditioning
from diffusion.config import build, canonical, locate, miscounted
from diffusion.denoiser import Denoiser
from diffusion.loading import fitting_guide
from diffusion.paths import relative
from diffusion.rehearsal import rehearsal
from diffusion.runs import CannotResume, device_of
from diffusion.schedules import NoiseSchedule
from diffusion.stages import NUMBERS, Stage
from diffusion.text.clip import CLIP

log = logging.getLogger(__name__)


COUNTS = ("steps", "batch", "accumulate", "sampling_steps", "log_every")
CADENCES = ("validate_every", "sample_every")  # null: never
POSITIVE = ("learning_rate", "clip", "save_minutes")
INSTEAD = {  # of Lightning's own options, which would change or cut short a run whose key does not know of them
    "max_steps": "steps=", "min_steps": "steps=", "max_epochs": "steps=", "min_epochs": "steps=", "max_time": "budget=",
    "limit_train_batches": "steps=", "overfit_batches": "data.train=", "fast_dev_run": "debug=smoke",
    "precision": "precision=", "gradient_clip_val": "clip=", "gradient_clip_algorithm": "clip=",
    "accumulate_grad_batches": "accumulate=", "callbacks": "callbacks=", "logger": "logger=",
    "default_root_dir": "paths.runs=", "val_check_interval": "validate_every=",
    "check_val_every_n_epoch": "validate_every=", "strategy": "trainer=ddp", "plugins": "precision=",
    "use_distributed_sampler": "trainer=ddp", "reload_dataloaders_every_n_epochs": "workers=",
}


def refuse_numbers(cfg) -> None:
    """What YAML takes for a number and a training cannot use. Raises ValueError with all of it."""
    wrong = miscounted({name: cfg[name] for name in COUNTS}
                      | {name: cfg[name] for name in CADENCES if cfg[name] is not None})
    wrong += [f"{name} = {cfg[name]}: a number above 0" for name in POSITIVE
              if not isinstance(cfg[name], int | float) or isinstance(cfg[name], bool) or not cfg[name] > 0]
    wrong += [f"trainer.{name}: take {ours}" for name, ours in INSTEAD.items() if name in cfg.trainer]
    if wrong:
        raise ValueError("\n  ".join(wrong))
    parts = processes.world() * cfg.accumulate
    if cfg.batch % parts:
        raise ValueError(f"batch = {cfg.batch} cannot be split over {processes.world()} processes with accumulate = "
                         f"{cfg.accumulate}: it must be a multiple of {parts}")
    dropout = cfg.task.get("caption_dropout", 0.0)
    if not 0 <= dropout <= 1:
        raise ValueError(f"task.caption_dropout = {dropout}: a share of the captions, from 0 to 1")
    start = cfg.task.get("adversarial_start")
    if start is not None and cfg.task.get("discriminator") is not None and start >= cfg.steps:
        raise ValueError(f"task.adversarial_start = {start}, but the run has only {cfg.steps} steps: the discriminator "
                         "would never start")
    if cfg.task.get("discriminator") is not None and cfg.budget is not None:
        raise ValueError("budget: an update of two networks that learn in turn (task.discriminator) is not measured; "
                         "give steps=")
    if cfg.task.get("discriminator") is not None and str(cfg.precision) == "16-mixed":
        raise ValueError("precision=16-mixed scales one loss, and task=autoencoder_adversarial has two: take "
                         "bf16-mixed or 32")


def refuse_early(stage: Stage, data) -> None:
    """Raises ValueError, CannotResume, FileNotFoundError."""
    cfg = stage.cfg
    if cfg.resume not in ("auto", "must", "never"):
        raise ValueError(f"resume = {cfg.resume}: allowed are auto, must and never")
    if cfg.resume == "must" and not (stage.done() or any(part.goes_on() for part in stage.walk())):
        raise CannotResume(f"resume=must, but {relative(stage.folder)} holds nothing to go on from (last.ckpt)")
    choose(cfg.precision, cfg.compile, device_of(cfg))
    if cfg.extend_from is not None:
        refuse_to_extend(stage)
    file = None if cfg.init_from is None else checkpoint.load(cfg.init_from, kind_of(cfg), cfg.trusted)
    if kind_of(cfg) == "latent_diffusion":
        refuse_diffusion(cfg, data, file)
        if cfg.evaluation.samples and not stage.done():
            refuse_few(cfg, data)


def refuse_few(cfg, data) -> None:
    """Raise ValueError where there are too few pictures for a Frechet distance at the end."""
    advice = "a Frechet distance takes 2 pictures at least; evaluation=none leaves it out"
    if cfg.evaluation.samples < 2:
        raise ValueError(f"evaluation.samples = {cfg.evaluation.samples}: {advice}")
    if (test := len(data.split("test"))) < 2:
        raise ValueError(f"the test split has {test} picture: {advice}")


def refuse_to_extend(stage: Stage) -> None:
    """Raise ValueError where extend_from names a run of another configuration than this stage's with more steps."""
    cfg, folder = stage.cfg, Path(stage.cfg.extend_from).expanduser()
    if cfg.init_from is not None:
        raise ValueError("init_from and extend_from exclude each other: one takes weights, the other a whole run")
    if cfg.budget is not None:
        raise ValueError("extend_from goes on to a number of steps: give steps=, not budget=")
    before = OmegaConf.load(folder / "config.yaml")
    facts = checkpoint.header(checkpoint.model_path(folder, "extend_from"))["facts"]
    groups = locate(cfg.task["_target_"], cfg.trusted).groups
    same = [name for name in (*groups, *NUMBERS) if name not in ("data", "steps", "lr")]
    other = [name for name in same if canonical(cfg[name], cfg.trusted) != canonical(before.get(name), cfg.trusted)]
    other += ["data"] if facts["data_fingerprint"] != stage.data_fingerprint else []
    parents = {name: parent.key for name, parent in stage.parents.items()}
    other += ["parent"] if facts["parents"] != parents else []
    if other:
        raise ValueError(f"extend_from = {cfg.extend_from}: that run has another {', another '.join(other)}; only "
                         "steps and lr may differ. init_from= takes its weights alone")
    if facts["steps"] >= cfg.steps:
        raise ValueError(f"extend_from = {cfg.extend_from}: that run has {facts['steps']} steps already, steps = "
                         f"{cfg.steps}: ask for more")


def refuse_diffusion(cfg, data, init_from: ModelFile | None) -> None:
    """The parts of a latent diffusion model and of its training against each other."""
    for option, key in (("likelihood", "likelihood"), ("full", "features")):
        if key in cfg.evaluation:
            raise ValueError(f"evaluation={option} scores a finished model: python sample.py ckpt=RUN "
                             f"evaluation={option}; train.py takes evaluation=judged, frechet or none")
    if cfg.evaluation.samples and not cfg.evaluation.judge and not cfg.text_encoder:
        raise ValueError("evaluation=frechet measures on the features of the model's own CLIP, and text_encoder=none "
                         "has none: take evaluation=judged or evaluation=none")
    if not cfg.text_encoder and "evaluation" in cfg.callbacks and cfg.callbacks.evaluation.get("extractor") is None:
        raise ValueError("callbacks=with_evaluation measures on the features of the model's own CLIP, and "
                         "text_encoder=none has none: take callbacks=default")
    encoder = text_encoder(cfg, {}, data.image_size)
    scale = cfg.guidance.get("scale", 1.0)
    if encoder is not None and not cfg.task.get("caption_dropout", 0.0) and scale != 1 and "guide" not in cfg.guidance:
        log.warning("guidance.scale = %g, but task.caption_dropout = 0: the null condition is never seen in training, "
                    "so guided pictures will not be meaningful; take guidance=none", scale)
    parts = describe(cfg, data, {}, encoder)
    network, autoencoder = build(parts["network"], cfg.trusted), build(parts["autoencoder"], cfg.trusted)
    latent_shape = autoencoder.latent_shape(data.image_size)
    try_out(network, latent_shape, encoder)
    if init_from is not None:
        init_from.start({"ema": network})
    schedule = build(cfg.schedule, cfg.trusted)
    time_sampler, objective = build(cfg.time_sampler, cfg.trusted), build(cfg.objective, cfg.trusted)
    time_sampler(schedule, torch.rand(1))
    if hasattr(time_sampler, "update") and isinstance(objective, nn.Module):
        raise ValueError("time_sampler=loss_second_moment wants losses that are 0 where nothing is left to learn, "
                         "and objective=uncertainty shifts them: both even the noise levels out, take one of the two")
    build(cfg.ema, cfg.trusted)(nn.Identity())
    rows = torch.zeros(cfg.batch // (processes.world() * cfg.accumulate), 1)
    build(cfg.coupling, cfg.trusted)(rows, rows)
    rehearse(cfg, schedule, parts, autoencoder, latent_shape)


@torch.no_grad()
def try_out(network: nn.Module, latent_shape: tuple[int, int, int], encoder: CLIP | None) -> None:
    """One latent through the backbone. Raises its ValueError, with what the latent comes from."""
    cond = None if encoder is None else Conditioning(
        torch.zeros(1, encoder.length, encoder.context_dim), pooled=torch.zeros(1, encoder.pooled_dim))
    try:
        network.eval()(torch.zeros(1, *latent_shape), torch.zeros(1), cond)
    except ValueError as error:
        raise ValueError(f"{error}; data= and autoencoder= give it latents of "
                         f"{' x '.join(map(str, latent_shape))}") from None


def rehearse(cfg, schedule: NoiseSchedule, parts: dict, autoencoder: nn.Module, latent_shape: tuple[int, int, int]
             ) -> None:
    """The first step of sampling a few numbers, with networks that answer what they see: what grid, sampler, guidance
    and threshold refuse."""
    outputs = parts["network"]["out_channels"] // parts["network"]["channels"]

    def echo(x, label, cond):
        return torch.cat(outputs * [x], 1)

    sampling = sampling_of(cfg)
    sampling.check(autoencoder)
    denoiser = Denoiser(echo, schedule, build(parts["parameterization"], cfg.trusted))
    file = fitting_guide(sampling, latent_shape, cfg.trusted)
    guide = None if file is None else Denoiser(echo, file.describe("schedule"), file.describe("parameterization"))
    next(rehearsal(denoiser, sampler=sampling.sampler, discretization=sampling.discretization,
                   guidance=sampling.guidance, steps=sampling.steps, guide=guide))

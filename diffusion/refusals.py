"""What cannot work is said before anything is trained: names, files, sizes, one step of sampling on a few numbers."""

import functools

import torch
from torch import nn

from diffusion import checkpoint, processes
from diffusion.acceleration import choose
from diffusion.assembly import describe, sampling_of, text_encoder
from diffusion.checkpoint import ModelFile
from diffusion.conditioning import Conditioning
from diffusion.config import build
from diffusion.denoiser import Denoiser
from diffusion.loading import fitting_guide
from diffusion.runs import CannotResume, device_of
from diffusion.schedules import NoiseSchedule
from diffusion.stages import Stage, kind_of, refuse_to_extend, relative
from diffusion.text.clip import CLIP


def refuse_early(stage: Stage, data) -> None:
    """Raises ValueError, CannotResume, FileNotFoundError."""
    cfg = stage.cfg
    if cfg.resume not in ("auto", "must", "never"):
        raise ValueError(f"resume = {cfg.resume}: allowed are auto, must and never")
    if cfg.resume == "must" and not any(part.started() or part.finished() for part in stage.walk()):
        raise CannotResume(f"resume=must, but {relative(stage.folder)} holds nothing to go on from (last.ckpt)")
    choose(cfg.precision, cfg.compile, device_of(cfg))
    if cfg.extend_from is not None:
        refuse_to_extend(stage)
    file = None if cfg.init_from is None else checkpoint.load(cfg.init_from, kind_of(cfg), cfg.trusted)
    if kind_of(cfg) == "latent_diffusion":
        refuse_diffusion(cfg, data, file)


def refuse_diffusion(cfg, data, init_from: ModelFile | None) -> None:
    """The parts of a latent diffusion model and of its training against each other."""
    encoder = text_encoder(cfg, {})
    for option, key in (("likelihood", "likelihood"), ("full", "features")):
        if key in cfg.evaluation:
            raise ValueError(f"evaluation={option} scores a finished model: python sample.py ckpt=RUN "
                             f"evaluation={option}; train.py takes evaluation=judged, frechet or none")
    if cfg.evaluation.samples and not cfg.evaluation.judge and encoder is None:
        raise ValueError("evaluation=frechet measures on the features of the model's own CLIP, and text_encoder=none "
                         "has none: take evaluation=judged or evaluation=none")
    if encoder is None and "evaluation" in cfg.callbacks and cfg.callbacks.evaluation.get("extractor") is None:
        raise ValueError("callbacks=with_evaluation measures on the features of the model's own CLIP, and "
                         "text_encoder=none has none: take callbacks=default")
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

    sampling, told = sampling_of(cfg), Conditioning(pooled=torch.zeros(1, 1))
    sampling.check(autoencoder)
    denoiser = Denoiser(echo, schedule, build(parts["parameterization"], cfg.trusted))
    guidance, file = sampling.guidance, fitting_guide(sampling, latent_shape, cfg.trusted)
    if file is not None:
        guide = Denoiser(echo, file.describe("schedule"), file.describe("parameterization"))
        guidance = functools.partial(guidance, guide=guide)
    ts = sampling.discretization(schedule, sampling.steps)
    x = schedule.prior(ts[0], torch.linspace(-1, 1, 4)[None])
    next(sampling.sampler(guidance(denoiser, told, told), schedule, x, ts, torch.zeros_like))

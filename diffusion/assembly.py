"""From a stage's configuration to its training: which config groups make which objects.

The one place that knows both. Each function takes the configuration, the data set, the parents' model files and the
settings that all trainings share.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from diffusion import checkpoint
from diffusion.checkpoint import ModelFile
from diffusion.conditioning import Conditioning
from diffusion.config import build, plain
from diffusion.denoiser import Denoiser
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.text import tokenizer
from diffusion.text.clip import CLIP
from diffusion.training.base import Training


def settings_of(cfg, rank: int = 0, world: int = 1) -> dict:
    """What every training is told."""
    optimizer = build(cfg.optimizer, cfg.trusted)
    if str(cfg.precision) == "16-mixed":
        optimizer = functools.partial(optimizer, fused=False)  # a fused step would unscale after the clipping
    return {"seed": cfg.seed, "steps": cfg.steps, "batch": cfg.batch, "optimizer": optimizer,
            "lr": build(cfg.lr, cfg.trusted), "clip": cfg.clip, "log_every": cfg.log_every, "rank": rank,
            "world": world, "accumulate": cfg.accumulate}


def autoencoder(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    node = {**plain(cfg.autoencoder), "image_channels": data.channels}
    clip = parents["text_encoder"].module("text_encoder").requires_grad_(False) if "text_encoder" in parents else None
    return task(model=build(node, cfg.trusted), node=node, data=data, perceptual=clip, **settings)


def contrastive(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    """The byte-pair encoding is learnt here, on the training captions, or comes with the weights to start from."""
    node = {**plain(cfg.text_encoder), "image_size": data.image_size}
    if cfg.init_from is not None:
        learnt = checkpoint.load(cfg.init_from).parts["text_encoder"]["tokenizer"]
    else:
        learnt = tokenizer.learn(data.split("train").captions, node.get("vocabulary", 1024))
    return task(model=build({**node, "tokenizer": learnt}, cfg.trusted), node=node, data=data, **settings)


def judge(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    node = {**plain(cfg.judge), "channels": data.channels, "heads": [len(v) for v in data.heads.values()]}
    del node["_partial_"]
    return task(model=build(node, cfg.trusted), node=node, data=data, **settings)


def diffusion(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    encoder = text_encoder(cfg, parents)
    parts = describe(cfg, data, parents, encoder)
    if "autoencoder" in parents:
        pixels_to_latents = parents["autoencoder"].module("autoencoder")
    else:
        pixels_to_latents = build(parts["autoencoder"], cfg.trusted)
    denoiser = Denoiser(build(parts["network"], cfg.trusted), build(cfg.schedule, cfg.trusted),
                        build(parts["parameterization"], cfg.trusted))
    model = LatentDiffusion(pixels_to_latents, encoder, denoiser, pixels_to_latents.latent_shape(data.image_size))
    return task(denoiser=denoiser, autoencoder=pixels_to_latents, text_encoder=encoder, nodes=parts, data=data,
                time_sampler=build(cfg.time_sampler, cfg.trusted), weighting=build(cfg.weighting, cfg.trusted) or None,
                objective=build(cfg.objective, cfg.trusted), coupling=build(cfg.coupling, cfg.trusted),
                sampling=with_guide(sampling_of(cfg), model, cfg.trusted), cache=Path(cfg.paths.cache), **settings)


ASSEMBLE = {"autoencoder": autoencoder, "clip": contrastive, "judge": judge, "latent_diffusion": diffusion}


def text_encoder(cfg, parents: Mapping[str, ModelFile]):
    """The parent's, a pretrained one, or None."""
    if "text_encoder" in parents:
        return parents["text_encoder"].module("text_encoder")
    return build(cfg.text_encoder, cfg.trusted) if cfg.text_encoder else None


def describe(cfg, data, parents: Mapping[str, ModelFile], encoder: CLIP | None) -> dict:
    """The parts of a latent diffusion model, as its file describes them. Sizes follow from the neighbours.

    Raises ValueError naming both configs where sizes cannot fit.
    """
    first = (parents["autoencoder"].parts["autoencoder"] if "autoencoder" in parents
             else {**plain(cfg.autoencoder), "image_channels": data.channels})
    first_stage = build(first, cfg.trusted)
    latent_shape = first_stage.latent_shape(data.image_size)
    text = {} if encoder is None else {
        "text_encoder": parents["text_encoder"].parts["text_encoder"] if "text_encoder" in parents
        else plain(cfg.text_encoder)}
    backbone = {name: value for name, value in plain(cfg.backbone).items() if name != "_partial_"}
    channels, outputs = latent_shape[0], getattr(build(cfg.objective, cfg.trusted), "outputs", 1)
    given = {"channels": channels, "out_channels": outputs * channels,
             "context_dim": None if encoder is None else encoder.context_dim,
             "pooled_dim": None if encoder is None else encoder.pooled_dim}
    for name, value in given.items():
        if name in ("context_dim", "pooled_dim") and backbone.get(name, value) is None:
            given[name] = None  # tokens or pooled vector are left out on purpose
        elif backbone.get(name, value) != value:
            raise ValueError(f"backbone.{name} = {backbone[name]}, but data={type(data).__name__} with the chosen "
                             f"autoencoder= and text_encoder= gives {value}: leave backbone.{name} out")
    network = {**backbone, **given}
    try_out(build(network, cfg.trusted), latent_shape, encoder)
    return {"autoencoder": first, **text, "network": network, "schedule": plain(cfg.schedule),
            "parameterization": {"sigma_data": first_stage.sigma_data, **plain(cfg.parameterization)},
            **{name: plain(cfg[name]) for name in ("sampler", "discretization", "guidance")}}


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


def sampling_of(cfg) -> Sampling:
    """From the groups sampler, discretization and guidance; a guide is still the name of its file."""
    return Sampling(sampler=build(cfg.sampler, cfg.trusted), discretization=build(cfg.discretization, cfg.trusted),
                    guidance=build(cfg.guidance, cfg.trusted), steps=cfg.sampling_steps, threshold=cfg.threshold)


def guide_file(sampling: Sampling, trust: Iterable[str] = ()) -> ModelFile | None:
    """The model file that guidance=autoguidance names; None where guidance takes no guide. Raises ValueError or
    FileNotFoundError where it names none."""
    if "guide" not in inspect.signature(sampling.guidance).parameters:
        return None
    path = sampling.guidance.keywords.get("guide")
    if path is None:
        raise ValueError("guidance=autoguidance needs guidance.guide=FILE: the model file, or the run's folder, of a "
                         "worse version of the model")
    return checkpoint.load(checkpoint.model_path(path, "guidance.guide"), "latent_diffusion", trust)


def with_guide(sampling: Sampling, model: LatentDiffusion, trust: Iterable[str] = ()) -> Sampling:
    """The same with the guide's denoiser, by its averaged weights, in place of the name of its file.

    Raises ValueError where model and guide have other latents, or the guide reads other captions.
    """
    file = guide_file(sampling, trust)
    if file is None:
        return sampling
    says = f"guidance.guide = {file.path}: this guide"
    if file.facts["latent_shape"] != list(model.latent_shape):
        raise ValueError(f"{says} has latents of shape {file.facts['latent_shape']}, the model of "
                         f"{list(model.latent_shape)}")
    if checkpoint.weights_hash(file.module("autoencoder")) != checkpoint.weights_hash(model.autoencoder):
        raise ValueError(f"{says} was trained on the latents of another autoencoder: both must share one file of it")
    if "text_encoder" in file.parts:
        own = None if model.text_encoder is None else checkpoint.weights_hash(model.text_encoder)
        if own != file.facts["text_encoder_hash"]:
            raise ValueError(f"{says} reads captions with the text encoder of hash {file.facts['text_encoder_hash']}, "
                             f"the model {'reads none' if own is None else f'with that of {own}'}: take a guide with "
                             "the same text encoder, or one trained without text")
    guide = denoiser_of(file).requires_grad_(False).eval()
    return dataclasses.replace(sampling, guidance=functools.partial(sampling.guidance, guide=guide))


def denoiser_of(file: ModelFile, weights: str = "ema") -> Denoiser:
    """The denoiser of a latent diffusion file."""
    return Denoiser(file.module("network", weights), file.describe("schedule"), file.describe("parameterization"))


def load_model(file: ModelFile, weights: str = "ema", text_encoder_path: str | None = None) -> LatentDiffusion:
    """The whole model of a latent diffusion file, ready to draw pictures.

    weights            ema or raw
    text_encoder_path  where a pretrained text encoder lies, if not under its own name
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights = {weights}: allowed are ema (the moving average) and raw")
    encoder = None
    if "text_encoder" in file.tensors:
        encoder = file.module("text_encoder")
    elif "text_encoder" in file.parts:
        path = {"path": text_encoder_path} if text_encoder_path else {}
        encoder = file.describe("text_encoder", **path)
        wanted, found = file.facts.get("text_encoder_hash"), checkpoint.weights_hash(encoder)
        if wanted != found:
            raise checkpoint.BadModelFile(f"{file.path} was trained with the text encoder of hash {wanted}, "
                                          f"{encoder.path} has {found}: name the right one with text_encoder.path=")
    model = LatentDiffusion(file.module("autoencoder"), encoder, denoiser_of(file, weights), file.facts["latent_shape"])
    return model.requires_grad_(False).eval()

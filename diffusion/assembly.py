"""From a stage's configuration to its training: which config groups make which objects.

The one place that knows both. Each function takes the configuration, the data set, the parents' model files and the
settings that all trainings share.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from diffusion import checkpoint
from diffusion.checkpoint import ModelFile
from diffusion.config import build, locate, plain, trained_here
from diffusion.denoiser import Denoiser
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.loading import with_guide
from diffusion.text import tokenizer
from diffusion.text.clip import CLIP
from diffusion.training.base import Training


def settings_of(cfg, rank: int = 0, world: int = 1) -> dict:
    """What every training is told."""
    return {"seed": cfg.seed, "steps": cfg.steps, "batch": cfg.batch, "optimizer": build(cfg.optimizer, cfg.trusted),
            "lr": build(cfg.lr, cfg.trusted), "clip": cfg.clip, "log_every": cfg.log_every, "rank": rank,
            "world": world, "accumulate": cfg.accumulate, "workers": cfg.workers}


def kind_of(cfg) -> str:
    """What the configured task trains."""
    return locate(cfg.task["_target_"], cfg.trusted).kind


def autoencoder_node(cfg, data) -> dict:
    return {**plain(cfg.autoencoder), "image_channels": data.channels}


def clip_node(cfg, data) -> dict:
    return {**plain(cfg.text_encoder), "image_size": data.image_size}


def judge_node(cfg, data) -> dict:
    node = {name: value for name, value in plain(cfg.judge).items() if name != "_partial_"}
    return {**node, "channels": data.channels, "heads": [len(v) for v in data.heads.values()], "mirror": data.mirror}


def autoencoder(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    node = autoencoder_node(cfg, data)
    clip = parents["text_encoder"].module("text_encoder").requires_grad_(False) if "text_encoder" in parents else None
    return task(model=build(node, cfg.trusted), node=node, data=data, perceptual=clip, **settings)


def contrastive(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    """The byte-pair encoding is learnt here, on the training captions, or comes with the weights to start from."""
    node = clip_node(cfg, data)
    if cfg.init_from is not None:
        learnt = checkpoint.load(cfg.init_from).parts["text_encoder"]["tokenizer"]
    else:
        learnt = tokenizer.learn(data.split("train").captions, node.get("vocabulary", 1024))
    return task(model=build({**node, "tokenizer": learnt}, cfg.trusted), node=node, data=data, **settings)


def judge(cfg, task: Callable, data, parents: Mapping[str, ModelFile], settings: dict) -> Training:
    node = judge_node(cfg, data)
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


def text_encoder(cfg, parents: Mapping[str, ModelFile], image_size: int | None = None):
    """The parent's, a pretrained one, or None. With the pictures' size: what the parent will be."""
    if "text_encoder" in parents:
        return parents["text_encoder"].module("text_encoder")
    if not cfg.text_encoder:
        return None
    sized = image_size is not None and trained_here(cfg.text_encoder, cfg.trusted)
    return build({**plain(cfg.text_encoder), **({"image_size": image_size} if sized else {})}, cfg.trusted)


def describe(cfg, data, parents: Mapping[str, ModelFile], encoder: CLIP | None) -> dict:
    """The parts of a latent diffusion model, as its file describes them. Sizes follow from the neighbours.

    Raises ValueError naming both configs where sizes cannot fit.
    """
    first = (parents["autoencoder"].parts["autoencoder"] if "autoencoder" in parents
             else autoencoder_node(cfg, data))
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
    return {"autoencoder": first, **text, "network": network, "schedule": plain(cfg.schedule),
            "parameterization": {"sigma_data": first_stage.sigma_data, **plain(cfg.parameterization)},
            **{name: plain(cfg[name]) for name in ("sampler", "discretization", "guidance")}}


def sampling_of(cfg) -> Sampling:
    """From the groups sampler, discretization and guidance; a guide is still the name of its file."""
    return Sampling(sampler=build(cfg.sampler, cfg.trusted), discretization=build(cfg.discretization, cfg.trusted),
                    guidance=build(cfg.guidance, cfg.trusted), steps=cfg.sampling_steps, threshold=cfg.threshold)

"""From a model file to the model that draws pictures, and to the second model that may guide it."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Sequence

from diffusion import checkpoint
from diffusion.checkpoint import ModelFile
from diffusion.denoiser import Denoiser
from diffusion.latent import LatentDiffusion, Sampling


def fitting_guide(sampling: Sampling, latent_shape: Sequence[int], trust: Iterable[str] = ()) -> ModelFile | None:
    """The model file that guidance=autoguidance names; None where guidance takes no guide.

    Raises ValueError or FileNotFoundError where it names none, or one of other latents.
    """
    if "guide" not in inspect.signature(sampling.guidance).parameters:
        return None
    path = sampling.guidance.keywords.get("guide")
    if path is None:
        raise ValueError("guidance=autoguidance needs guidance.guide=FILE: the model file, or the run's folder, of a "
                         "worse version of the model")
    file = checkpoint.load(checkpoint.model_path(path, "guidance.guide"), "latent_diffusion", trust)
    if file.facts["latent_shape"] != list(latent_shape):
        raise ValueError(f"guidance.guide = {file.path}: this guide has latents of shape {file.facts['latent_shape']}, "
                         f"the model of {list(latent_shape)}")
    return file


def with_guide(sampling: Sampling, model: LatentDiffusion, trust: Iterable[str] = ()) -> Sampling:
    """The same with the guide's denoiser, by its averaged weights, in place of the name of its file.

    Raises ValueError where model and guide have other latents, or the guide reads other captions.
    """
    file = fitting_guide(sampling, model.latent_shape, trust)
    if file is None:
        return sampling
    says = f"guidance.guide = {file.path}: this guide"
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


def load_sampling(file: ModelFile) -> Sampling:
    """How the model of a latent diffusion file draws unless told otherwise: its sampler, grid, guidance and steps. A
    guide is still the name of its file (`with_guide`)."""
    parts = {name: file.describe(name) for name in ("sampler", "discretization", "guidance")}
    return Sampling(**parts, steps=file.facts["sampling_steps"], threshold=file.facts.get("threshold"))


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

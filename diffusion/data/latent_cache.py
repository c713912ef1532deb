"""What frozen encoders say of the training set: posterior moments of every picture (mirrored too, where the data set
allows) and encodings of every caption, computed once and kept under a name made of what they depend on. They lie in
their files, of which memory holds what is being read.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.acceleration import Acceleration
from diffusion.checkpoint import weights_hash
from diffusion.conditioning import Conditioning
from diffusion.data.captioned import CaptionedImages
from diffusion.data.mapped import mapped
from diffusion.data.pictures import at_once, chunks
from diffusion.files import atomic
from diffusion.pixels import to_float
from diffusion.text.clip import CLIP

log = logging.getLogger(__name__)
Allocate = Callable[..., dict[str, Tensor]]  # (name=shape, ...) -> new tensors


def float32(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}


def bfloat16(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}


@torch.no_grad()
def moments(autoencoder: nn.Module, images: Tensor, acceleration: Acceleration, *, mirror: bool = False,
            allocate: Allocate = float32) -> Float[Tensor, "n f 2 c h w"]:
    """Whitened mean and standard deviation of the posterior of every picture; f = 2 with the mirrored ones. They go
    into what `allocate` gives."""
    device, views = next(autoencoder.buffers()).device, (False, True) if mirror else (False,)
    out = None
    for index in chunks(range(len(images)), at_once(images)):
        x = to_float(images[index.start : index.stop].to(device))
        both = []
        for flip in views:
            with acceleration.autocast(device):
                view = (x.flip(-1) if flip else x).contiguous(memory_format=acceleration.memory_format)
                posterior = autoencoder.posterior(view)
            std = (0.5 * posterior.log_var.float()).exp() / autoencoder.scale
            both.append(torch.stack([autoencoder.whiten(posterior.mean.float()), std], 1))
        some = torch.stack(both, 1)
        if out is None:
            out = allocate(moments=(len(images), *some.shape[1:]))["moments"]
        out[index.start : index.stop] = some
    return out


@torch.no_grad()
def encodings(text_encoder: CLIP, captions: tuple[str, ...], acceleration: Acceleration, chunk: int = 1024,
              allocate: Allocate = bfloat16) -> Conditioning:
    """The tokens and pooled vector of every caption. They go into what `allocate` gives."""
    out = None
    for index in chunks(range(len(captions)), chunk):
        with acceleration.autocast(text_encoder.device):
            some = text_encoder(captions[index.start : index.stop])
        if out is None:
            out = allocate(**{name: (len(captions), *getattr(some, name).shape[1:]) for name in ("tokens", "pooled")})
        out["tokens"][index.start : index.stop] = some.tokens
        out["pooled"][index.start : index.stop] = some.pooled
    return Conditioning(**out)


def cached(folder: Path, name: str, depends_on: tuple, make: Callable[[Allocate], object]) -> dict[str, Tensor]:
    """The tensors that make(allocate) fills, from their file where it was made before from the same things. Of several
    processes one makes it, the others wait and read."""
    key = hashlib.blake2b(repr(depends_on).encode(), digest_size=10).hexdigest()
    path = folder / f"{name}-{key}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{path.name}.lock"):
        if path.exists():
            log.info("%s: from %s", name, path)
        else:
            atomic(path, lambda temporary: make(functools.partial(mapped, temporary)))
    return load_file(path)


def cached_latents(folder: Path, autoencoder: nn.Module, split: CaptionedImages, data_fingerprint: str,
                   acceleration: Acceleration, *, mirror: bool, name: str) -> Tensor:
    """The split's moments, in bfloat16."""
    depends_on = (data_fingerprint, name, weights_hash(autoencoder), mirror, acceleration.precision, "moments 1")
    return cached(folder, f"latents-{name}", depends_on, lambda allocate: moments(
        autoencoder, split.images, acceleration, mirror=mirror, allocate=allocate))["moments"]


def cached_captions(folder: Path, text_encoder: CLIP, captions: tuple[str, ...], acceleration: Acceleration
                    ) -> Conditioning:
    """The captions' encodings."""
    depends_on = (hashlib.blake2b("\n".join(captions).encode()).hexdigest(), weights_hash(text_encoder),
                  acceleration.precision, "captions 1")
    return Conditioning(**cached(folder, "captions", depends_on, lambda allocate: encodings(
        text_encoder, captions, acceleration, allocate=allocate)))

"""What frozen encoders say of the training set: posterior moments of every picture (mirrored too, where the data set
allows) and encodings of every caption, computed once and kept under a name made of what they depend on.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion.acceleration import Acceleration
from diffusion.checkpoint import weights_hash
from diffusion.conditioning import Conditioning
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import at_once, chunks
from diffusion.files import atomic
from diffusion.pixels import to_float
from diffusion.text.clip import CLIP

log = logging.getLogger(__name__)


@torch.no_grad()
def moments(autoencoder: nn.Module, images: Tensor, acceleration: Acceleration, *, mirror: bool = False,
            dtype: torch.dtype = torch.float32) -> Float[Tensor, "n f 2 c h w"]:
    """Whitened mean and standard deviation of the posterior of every picture; f = 2 with the mirrored ones."""
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
            out = torch.empty(len(images), *some.shape[1:], dtype=dtype)
        out[index.start : index.stop] = some
    return out


@torch.no_grad()
def encodings(text_encoder: CLIP, captions: tuple[str, ...], acceleration: Acceleration, chunk: int = 1024
              ) -> Conditioning:
    """The conditioning of every caption, in bfloat16."""
    parts = []
    for piece in chunks(captions, chunk):
        with acceleration.autocast(text_encoder.device):
            parts.append(text_encoder(piece).to("cpu", torch.bfloat16))
    return Conditioning(tokens=torch.cat([p.tokens for p in parts]), pooled=torch.cat([p.pooled for p in parts]))


def cached(folder: Path, name: str, depends_on: tuple, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What make() gives, from a file where it was made before from the same things. Of several processes one makes
    it, the others wait and read."""
    key = hashlib.blake2b(repr(depends_on).encode(), digest_size=10).hexdigest()
    path = folder / f"{name}-{key}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{path.name}.lock"):
        if path.exists():
            log.info("%s: from %s", name, path)
            return load_file(path)
        tensors = make()
        atomic(path, lambda temporary: save_file(tensors, temporary))
    return tensors


def cached_latents(folder: Path, autoencoder: nn.Module, split: CaptionedImages, data_fingerprint: str,
                   acceleration: Acceleration, *, mirror: bool, name: str) -> Tensor:
    """The split's moments, in bfloat16."""
    depends_on = (data_fingerprint, name, weights_hash(autoencoder), mirror, acceleration.precision, "moments 1")
    return cached(folder, f"latents-{name}", depends_on, lambda: {
        "moments": moments(autoencoder, split.images, acceleration, mirror=mirror, dtype=torch.bfloat16)})["moments"]


def cached_captions(folder: Path, text_encoder: CLIP, captions: tuple[str, ...], acceleration: Acceleration
                    ) -> Conditioning:
    """The captions' encodings."""
    depends_on = (hashlib.blake2b("\n".join(captions).encode()).hexdigest(), weights_hash(text_encoder),
                  acceleration.precision, "captions 1")
    return Conditioning(**cached(folder, "captions", depends_on, lambda: {
        k: v.contiguous() for k, v in vars(encodings(text_encoder, captions, acceleration)).items() if v is not None}))

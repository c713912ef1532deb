"""The training set as the denoiser sees it: posterior moments of every picture (mirrored too, where the data set
allows) and the encodings of every caption, computed once and kept under a name made of what they depend on.

The cache keeps moments, not samples: each step draws its own posterior sample.
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

from diffusion import rng
from diffusion.acceleration import Acceleration
from diffusion.checkpoint import atomic, weights_hash
from diffusion.conditioning import Conditioning
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import chunks
from diffusion.pixels import to_float
from diffusion.text.clip import CLIP

log = logging.getLogger(__name__)


@torch.no_grad()
def moments(autoencoder: nn.Module, images: Tensor, acceleration: Acceleration, *, mirror: bool = False,
            chunk: int = 256) -> Float[Tensor, "n f 2 c h w"]:
    """Whitened mean and standard deviation of the posterior of every picture; f = 2 with the mirrored ones."""
    device, views = next(autoencoder.buffers()).device, (False, True) if mirror else (False,)
    out = []
    for index in chunks(range(len(images)), chunk):
        x = to_float(images[index.start : index.stop].to(device))
        both = []
        for flip in views:
            with acceleration.autocast(device):
                view = (x.flip(-1) if flip else x).contiguous(memory_format=acceleration.memory_format)
                posterior = autoencoder.posterior(view)
            std = (0.5 * posterior.log_var.float()).exp() / autoencoder.scale
            both.append(torch.stack([autoencoder.whiten(posterior.mean.float()), std], 1))
        out.append(torch.stack(both, 1).to(torch.bfloat16).cpu())
    return torch.cat(out)


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


class Latents:
    """Fetches x_0, one caption's encoding and the null encoding where the caption is dropped.

    caption_dropout  share of rows that see the null condition (Ho & Salimans 2022)
    """

    def __init__(self, moments: Tensor, captions: Conditioning | None, null: Conditioning | None,
                 split: CaptionedImages, *, batch: int, seed: int, caption_dropout: float):
        self.moments, self.captions, self.null, self.split = moments, captions, null, split
        self.batch, self.seed, self.caption_dropout = batch, seed, caption_dropout

    def __call__(self, index: Tensor, step: int, rows: slice) -> dict:
        def draw(n: int, what: str) -> Tensor:
            return rng.integers(n, (self.batch,), self.seed, step, what, rows=rows)

        mean, std = self.moments[index, draw(self.moments.shape[1], "mirror")].float().unbind(1)
        z = rng.normal((self.batch, *mean.shape[1:]), self.seed, step, "posterior", rows=rows)
        out = {"x0": mean + std * z}
        if self.captions is not None:
            ids = self.split.caption_ids[index, draw(self.split.caption_ids.shape[1], "caption")]
            keep = rng.uniform((self.batch,), self.seed, step, "dropout", rows=rows) >= self.caption_dropout
            cond = self.captions[ids].to(torch.float32).where(keep, self.null.expand(len(ids)))
            out |= {"tokens": cond.tokens, "pooled": cond.pooled}
        return out


def cached_latents(folder: Path, autoencoder: nn.Module, split: CaptionedImages, data_fingerprint: str,
                   acceleration: Acceleration, *, mirror: bool, name: str) -> Tensor:
    """The split's moments."""
    depends_on = (data_fingerprint, name, weights_hash(autoencoder), mirror, acceleration.precision, "moments 1")
    return cached(folder, f"latents-{name}", depends_on, lambda: {
        "moments": moments(autoencoder, split.images, acceleration, mirror=mirror)})["moments"]


def cached_captions(folder: Path, text_encoder: CLIP, captions: tuple[str, ...], acceleration: Acceleration
                    ) -> Conditioning:
    """The captions' encodings."""
    depends_on = (hashlib.blake2b("\n".join(captions).encode()).hexdigest(), weights_hash(text_encoder),
                  acceleration.precision, "captions 1")
    return Conditioning(**cached(folder, "captions", depends_on, lambda: {
        k: v.contiguous() for k, v in vars(encodings(text_encoder, captions, acceleration)).items() if v is not None}))

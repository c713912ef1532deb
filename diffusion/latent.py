"""Latent diffusion (Rombach et al. 2022): an autoencoder, a text encoder and a denoiser of latents, as one model.

    prompts -> conditioning -> sampler over latents -> pixels
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from diffusion.acceleration import Acceleration
from diffusion.conditioning import Conditioning
from diffusion.data.pictures import at_once, chunks
from diffusion.denoiser import Denoiser
from diffusion.discretizations import trailing
from diffusion.estimate import Denoise, Noise, Sampler, Step
from diffusion.guidance import cfg_pp, classifier_free, thresholded
from diffusion.models.attention import keys_kept
from diffusion.models.identity import Identity
from diffusion.pixels import to_uint8
from diffusion.samplers.ddim import ddim
from diffusion.text.clip import CLIP

CLASSIFIER_FREE = functools.partial(classifier_free, scale=3.0)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: grid and sampler, and the guidance that makes one denoiser of two conditionings.

    threshold  the percentile of dynamic thresholding, as a share; None leaves x_0 as it is
    """

    sampler: Sampler = ddim
    discretization: Callable = trailing
    guidance: Callable[..., Denoise] = CLASSIFIER_FREE
    steps: int = 50
    threshold: float | None = None

    def __post_init__(self):
        sampler, guidance = (getattr(f, "func", f) for f in (self.sampler, self.guidance))
        if guidance is cfg_pp and sampler is not ddim:
            raise ValueError("guidance=cfg_pp takes x_0 and eps from two branches, and "
                             f"{sampler.__name__} does not step from these two alone: take sampler=ddim (euler, "
                             "euler_ancestral), or another guidance")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold}: a percentile as a share is expected, above 0 and at most "
                             "1 (0.995), or null")

    def check(self, autoencoder: nn.Module) -> None:
        """Raise ValueError where x_0 shall be brought back into a range that is not known."""
        if self.threshold is not None and not isinstance(autoencoder, Identity):
            raise ValueError(f"threshold = {self.threshold}: dynamic thresholding is for pixels, which end at -1 and 1 "
                             "(autoencoder=identity); latents have no such ends")


class LatentDiffusion(nn.Module):
    """text_encoder is None for an unconditional model."""

    def __init__(self, autoencoder: nn.Module, text_encoder: CLIP | None, denoiser: Denoiser,
                 latent_shape: Sequence[int]):
        super().__init__()
        self.autoencoder, self.text_encoder, self.denoiser = autoencoder, text_encoder, denoiser
        self.latent_shape = tuple(latent_shape)
        self.acceleration = Acceleration()

    def accelerate(self, plan: Acceleration) -> None:
        """Take over a machine's fast setting: precision and memory format of every network."""
        self.acceleration = plan
        self.denoiser.compute_dtype, self.denoiser.memory_format = plan.dtype, plan.memory_format
        if plan.channels_last:
            self.to(memory_format=torch.channels_last)

    def autocast(self):
        """In which autoencoder and text encoder run; the denoiser enters its own."""
        return self.acceleration.autocast(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def condition(self, prompts: Sequence[str]) -> Conditioning | None:
        """What the denoiser is told; each distinct prompt is encoded once."""
        if self.text_encoder is None:
            return None
        distinct = sorted(set(prompts))
        with self.autocast():
            encoded = self.text_encoder(distinct)
        return encoded.to(self.device, torch.float32)[torch.tensor([distinct.index(p) for p in prompts])]

    def denoise(self, cond: Conditioning | None, sampling: Sampling, negative: str = "") -> Denoise:
        """The function that a sampler calls."""
        sampling.check(self.autoencoder)
        null = None if cond is None else self.condition([negative]).expand(len(cond))
        denoise = sampling.guidance(self.denoiser, cond, null)
        if sampling.threshold is None:
            return denoise
        return thresholded(denoise, self.denoiser.schedule, sampling.threshold)

    def sample(self, cond: Conditioning | None, noise: Noise, n: int, sampling: Sampling, negative: str = ""
               ) -> Iterator[Step]:
        """The sampler's steps for n pictures. `noise` is drawn from once for the start, then by the sampler."""
        schedule = self.denoiser.schedule
        ts = sampling.discretization(schedule, sampling.steps)
        eps = noise(torch.empty(n, *self.latent_shape, device=self.device))
        with keys_kept(self.denoiser.network):
            yield from sampling.sampler(self.denoise(cond, sampling, negative), schedule, schedule.prior(ts[0], eps),
                                        ts, noise)

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], noise: Noise, sampling: Sampling, negative: str = ""
                 ) -> UInt8[Tensor, "b c h w"]:
        """Pictures for the prompts, as the files show them."""
        steps = self.sample(self.condition(prompts), noise, len(prompts), sampling, negative)
        last = collections.deque(steps, maxlen=1)
        return self.decode(last[0].x)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b d i j"]) -> UInt8[Tensor, "b c h w"]:
        """Latents to 8-bit pictures."""
        some = chunks(z, at_once(z, self.autoencoder.factor))
        with self.autocast():
            return torch.cat([to_uint8(self.autoencoder.decode(part)) for part in some])

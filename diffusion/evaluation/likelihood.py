"""Bits per dimension of pictures under a model, per dimension of the picture also where the model is one of latents.

    pixels    -log P(x)
    latents   -log P(x) <= E_q[-log p(z)] - H(q(z | x)) + E_q[-log P(x | z)],    z whitened, z ~ q(z | x)

P(x | z) is a discretised Laplace distribution around the decoded picture, whichever error the decoder has learned. Its
one number, the scale, is fitted to training pictures and stated with the result. The draws for picture i depend on
(seed, i) only.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from einops import reduce
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion import rng
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import chunks
from diffusion.estimate import Denoise
from diffusion.latent import LatentDiffusion
from diffusion.likelihood import bound, ode, pixels
from diffusion.models.identity import Identity
from diffusion.pixels import to_float
from diffusion.schedules import NoiseSchedule
from diffusion.time_sampling import stratified

Nats = dict[str, Tensor]  # part -> one number per picture; their sum bounds or estimates -log p
Decoder = Callable[[Tensor, Tensor], Tensor]  # (pixels, decoded pixels) -> -log P(x | z), one number per picture


@dataclasses.dataclass(frozen=True)
class Draws:
    """What is random about the pictures `index`."""

    seed: int
    index: Sequence[int]

    def normal(self, purpose: str, like: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        return self._rows(rng.normal, purpose, like.shape[1:]).to(like)

    def uniform(self, purpose: str, like: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        return self._rows(rng.uniform, purpose, like.shape[1:]).to(like)

    def times(self, purpose: str, n: int) -> Float[Tensor, "b n"]:
        """n low-discrepancy numbers in [0, 1) for each picture, on the CPU."""
        return torch.stack([stratified(u, n) for u in self._rows(rng.uniform, purpose, (1,))])

    def _rows(self, draw: Callable, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.stack([draw(shape, self.seed, i, purpose) for i in self.index])


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """Between log_snr_min and log_snr_max, as far as the schedule reaches."""

    log_snr_min: float
    log_snr_max: float

    def ends(self, schedule: NoiseSchedule) -> tuple[float, float]:
        """Raises ValueError where nothing lies between."""
        own_low, own_high = schedule.log_snr_range
        low, high = max(self.log_snr_min, own_low), min(self.log_snr_max, own_high)
        if not low < high:
            raise ValueError(f"log_snr_min = {self.log_snr_min:g} and log_snr_max = {self.log_snr_max:g} leave nothing "
                             f"of {schedule}, which runs from {own_low:g} to {own_high:g}")
        return low, high

    @abc.abstractmethod
    def nats(self, denoise: Denoise, schedule: NoiseSchedule, x0: Float[Tensor, "b *d"], draws: Draws, *,
             eight_bit: bool) -> Nats:
        """Of x_0; `eight_bit`: of its pixels' levels, else of a point in a continuous space."""


@dataclasses.dataclass(frozen=True)
class Bound(Method):
    """prior, diffusion and reconstruction of the variational bound; `draws` evaluations of the network.

    steps  of the discrete bound; None is its limit of infinitely many
    """

    draws: int = 32
    steps: int | None = None

    def __post_init__(self):
        at_least_one(draws=self.draws, steps=self.steps)

    def nats(self, denoise, schedule, x0, draws, *, eight_bit):
        low, high = self.ends(schedule)
        diffusion = bound.continuous if self.steps is None else functools.partial(bound.discrete, steps=self.steps)
        diffused, reconstructed = [], []
        for k, u in enumerate(draws.times("times", self.draws).unbind(1)):
            eps = draws.normal(f"eps {k}", x0)
            diffused.append(diffusion(denoise, schedule, x0, u, eps, low, high))
            reconstructed.append(pixels.levels(x0, eps, high) if eight_bit else bound.reconstruction(x0, high))
        return {"prior": bound.prior(schedule, x0, low), "diffusion": torch.stack(diffused).mean(0),
                "reconstruction": torch.stack(reconstructed).mean(0)}


@dataclasses.dataclass(frozen=True)
class ODE(Method):
    """density, by the probability-flow ODE; 4 steps (1 + probes) passes through the network. Pixels are dequantised."""

    steps: int = 25
    probes: int = 1

    def __post_init__(self):
        at_least_one(steps=self.steps, probes=self.probes)

    def nats(self, denoise, schedule, x0, draws, *, eight_bit):
        probes = torch.stack([ode.rademacher(draws.normal(f"probe {k}", x0)) for k in range(self.probes)])
        bins = 0.0
        if eight_bit:
            x0 = pixels.dequantised(x0, draws.uniform("dequantisation", x0))
            bins = -x0[0].numel() * math.log(pixels.WIDTH)
        density = ode.log_density(denoise, schedule, x0, probes, *self.ends(schedule), steps=self.steps)
        return {"density": bins - density}


def at_least_one(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} = {number}: at least 1")


def likelihood_scores(
    model: LatentDiffusion, train: CaptionedImages, test: CaptionedImages, methods: Mapping[str, Method], seed: int,
    *, batch: int = 64, say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, dict]:
    """For each method: bits per dimension of the test pictures, the standard error over them, and the parts.

    The training pictures serve to fit the decoder's scale. progress(n) is called after each batch with its size.
    """
    if len(test) < 2:
        raise ValueError(f"a standard error needs at least 2 pictures, there are {len(test)}")
    schedule, decoder, scores = model.denoiser.schedule, None, {}
    if not isinstance(model.autoencoder, Identity):
        scale = decoder_scale(model, train, seed, batch)
        decoder = functools.partial(pixels.laplace, b=scale)
        say(f"decoder: discretised Laplace of scale {scale:.4g}, fitted to {len(train)} training pictures")
    for name, method in methods.items():
        parts = []
        for index in chunks(range(len(test)), batch):
            images = test.images[index.start : index.stop]
            captions = [test.captions[i] for i in test.caption_ids[index.start : index.stop, 0].tolist()]
            nats = picture_nats(model, images, captions, method, Draws(seed, index), decoder)
            parts.append({part: pixels.bits_per_dim(value.cpu(), images[0].numel()) for part, value in nats.items()})
            progress(len(images))
        bits = {part: torch.cat([some[part] for some in parts]) for part in parts[0]}
        total = sum(bits.values())
        low, high = method.ends(schedule)
        scores[name] = {"bits_per_dim": total.mean().item(), "standard_error": (total.std() / len(total) ** 0.5).item(),
                        "parts": {part: value.mean().item() for part, value in bits.items()}, "log_snr": [low, high]}
        if decoder is not None:
            scores[name]["decoder_scale"] = scale
        say(f"{name}: {scores[name]['bits_per_dim']:.4f} +- {scores[name]['standard_error']:.4f} bits per dimension ("
            + ", ".join(f"{part} {value:.4f}" for part, value in scores[name]["parts"].items()) + f"), n={len(test)}")
    return scores


@torch.no_grad()
def picture_nats(model: LatentDiffusion, images: UInt8[Tensor, "b c h w"], captions: list[str], method: Method,
                 draws: Draws, decoder: Decoder | None) -> Nats:
    """With the captions as conditioning and without guidance. A model of pixels has no decoder."""
    x, cond, schedule = to_float(images.to(model.device)), model.condition(captions), model.denoiser.schedule

    def denoise(x_t, t):
        return model.denoiser(x_t, t, cond)

    if decoder is None:
        return method.nats(denoise, schedule, x, draws, eight_bit=True)
    z, entropy, decoded = through(model, x, draws)
    nats = method.nats(denoise, schedule, z, draws, eight_bit=False)
    return nats | {"entropy": -entropy, "decoder": decoder(x, decoded)}


def through(model: LatentDiffusion, x: Float[Tensor, "b c h w"], draws: Draws
            ) -> tuple[Float[Tensor, "b k i j"], Float[Tensor, " b"], Float[Tensor, "b c h w"]]:
    """z ~ q(z | x), the entropy of q in the whitened coordinates, and the picture that z is decoded to."""
    autoencoder = model.autoencoder
    with model.autocast():
        posterior = autoencoder.posterior(x)
    z = autoencoder.whiten(posterior.sample(draws.normal("posterior", posterior.mean)))
    entropy = reduce(posterior.entropy() - autoencoder.scale.log(), "b ... -> b", "sum")
    with model.autocast():
        return z, entropy, autoencoder.decode(z).float()


@torch.no_grad()
def decoder_scale(model: LatentDiffusion, pictures: CaptionedImages, seed: int, batch: int) -> float:
    """The mean absolute error of samples of the posterior: a Laplace density's scale of greatest likelihood."""
    errors = []
    for index in chunks(range(len(pictures)), batch):
        x = to_float(pictures.images[index.start : index.stop].to(model.device))
        errors.append(reduce((through(model, x, Draws(seed, index))[2] - x).abs(), "b ... -> b", "mean").cpu())
    return torch.cat(errors).mean().item()

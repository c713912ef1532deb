"""Does the network listen? What another prompt changes in its estimate of x_0, by noise level:

    sensitivity(l) = E |x0(x_t, c') - x0(x_t, c)|^2 / E |x0(x_t, c) - x_0|^2,    l = log-SNR(t), c' of another picture

0 where the prompt is ignored. It is measured without guidance, on held-out pictures; guidance scales what is measured
here, so where this is 0, no scale helps.
"""

import dataclasses
import itertools

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffusion import rng
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import chunks
from diffusion.evaluation.likelihood import Draws
from diffusion.evaluation.metrics.intervals import Interval, of_mean
from diffusion.latent import LatentDiffusion
from diffusion.pixels import to_float

EDGES = (-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Between two log-SNRs: mean squares per value of x_0, and their ratio.

    difference  between the estimates by both prompts
    error       of the estimate by the right prompt; error_shuffled by the other
    relative    difference / error
    """

    log_snr: tuple[float, float]
    difference: float
    error: float
    error_shuffled: float
    relative: Interval


def shuffled(content: Int64[Tensor, " n"], seed: int) -> tuple[Int64[Tensor, " n"], Bool[Tensor, " n"]]:
    """A permutation that gives each picture another content, and where it does: everywhere, unless one content has more
    than half of the pictures."""
    order = torch.randperm(len(content), generator=rng.generator(seed, 0, "shuffled prompts"))
    order = order[content[order].argsort(stable=True)]
    other = torch.empty_like(order)
    other[order] = order.roll(int(content.unique(return_counts=True)[1].max()))
    return other, content[other] != content


@torch.no_grad()
def prompt_sensitivity(model: LatentDiffusion, pictures: CaptionedImages, seed: int, *, batch: int = 64
                       ) -> list[Sensitivity]:
    """One for each bin that the schedule reaches. Raises ValueError where all pictures have one content."""
    other, differs = shuffled(pictures.content, seed)
    own = torch.arange(len(pictures))[differs]
    if len(own) < 2:
        raise ValueError("a prompt can only be exchanged for one of other content, and all pictures have the same")
    captions = [pictures.captions[i] for i in pictures.caption_ids[:, 0].tolist()]
    low, high = model.denoiser.schedule.log_snr_range
    bins = [(max(a, low), min(b, high)) for a, b in itertools.pairwise(EDGES) if max(a, low) < min(b, high)]
    squares = [[] for _ in bins]
    for index in chunks(own, batch):
        with model.autocast():
            x0 = model.autoencoder.encode(to_float(pictures.images[index].to(model.device)))
        told = model.condition([captions[i] for i in index.tolist()])
        wrong = model.condition([captions[i] for i in other[index].tolist()])
        for k, ends in enumerate(bins):
            squares[k].append(_squares(model, x0.float(), told, wrong, ends, Draws(seed, index.tolist())))
    found = []
    for ends, parts in zip(bins, squares, strict=True):
        difference, error, error_shuffled = torch.cat(parts, 1)
        found.append(Sensitivity(ends, difference.mean().item(), error.mean().item(), error_shuffled.mean().item(),
                                 of_ratio(difference, error)))
    return found


def _squares(model: LatentDiffusion, x0: Tensor, told, wrong, ends: tuple[float, float], draws: Draws) -> Tensor:
    """difference, error and error by the wrong prompt, of each picture at one level between the ends."""
    schedule, purpose = model.denoiser.schedule, f"sensitivity {ends}"
    t = schedule.t_of(ends[0] + (ends[1] - ends[0]) * draws.times(purpose, 1)[:, 0].double())
    x_t = schedule.diffuse(x0, t, draws.normal(purpose, x0))
    right, other = (model.denoiser(x_t, t, cond).x0 for cond in (told, wrong))
    pairs = (right, other), (right, x0), (other, x0)
    return torch.stack([reduce((a - b).square(), "b ... -> b", "mean") for a, b in pairs]).cpu()


def of_ratio(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Interval:
    """r = mean(a) / mean(b) of pairs: Var[r] = Var[a - r b] / (n mean(b)^2) (Cochran 1977, Eq. 6.12)."""
    a, b = a.double(), b.double()
    ratio = (a.mean() / b.mean()).item()
    around = of_mean((a - ratio * b) / b.mean())
    return Interval(ratio, ratio + around.low, ratio + around.high)

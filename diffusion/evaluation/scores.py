"""What is reported of a trained model: prompts that its samples satisfy, and Frechet distances with their floors.

Every distance is to the whole test split, with a 95 % interval. Beside that of n samples stand those of n training
pictures and of their reconstructions: what perfect sampling of the training set would reach, without and with the
autoencoder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from diffusion.data.captioned import CaptionedDataset
from diffusion.data.pictures import at_once, chunks
from diffusion.evaluation.features import FeatureExtractor
from diffusion.evaluation.metrics.frechet import frechet_distance, frechet_intervals, moments_of
from diffusion.evaluation.metrics.intervals import GROUPS, Interval
from diffusion.evaluation.reconstruction import reconstructed
from diffusion.evaluation.reference import features_of, reference_of
from diffusion.latent import LatentDiffusion
from diffusion.objectives.classification import all_right
from diffusion.pixels import to_float


@torch.no_grad()
def judged_right(judge: nn.Module, images: UInt8[Tensor, "n c h w"], labels: Tensor) -> Bool[Tensor, " n"]:
    """Whether each picture shows all that its prompt asked for."""
    device, size = next(judge.parameters()).device, at_once(images)
    return torch.cat([all_right(judge(to_float(some.to(device))), wanted.to(device)).cpu()
                      for some, wanted in zip(chunks(images, size), chunks(labels, size), strict=True)])


def frechet_scores(
    samples: UInt8[Tensor, "n c h w"], model: LatentDiffusion, data: CaptionedDataset,
    extractors: Sequence[FeatureExtractor], cache: Path, seed: int, say: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """For each extractor: distances of samples, reconstructions and real training pictures to the test split, whose
    features the cache keeps. Processes share the work; all need the same samples."""
    real = data.split("train").pick(len(samples), seed).images
    scores = {}
    for extract in extractors:
        reference = reference_of(data, "test", extract, cache).features
        sets = {"samples": features_of(samples, extract),
                "reconstructions": features_of(real, of_reconstructions(model, extract)),
                "real": features_of(real, extract)}
        found = {name: distance(features, reference) for name, features in sets.items()}
        scores[extract.name] = {name: interval.value for name, interval in found.items()} | {
            "intervals": {name: [interval.low, interval.high] for name, interval in found.items()},
            "features": extract.hash, "n": len(samples), "floor_n": len(real), "reference_n": len(reference)}
        say(f"Frechet distance on {extract.name} features, n={len(samples)} against {len(reference)}: "
            + ", ".join(f"{name} {scores[extract.name][name]:.4g}" for name in sets)
            + (f" (these two of all {len(real)} training pictures)" if len(real) < len(samples) else ""))
    return scores


def of_reconstructions(model: LatentDiffusion, extract: FeatureExtractor) -> Callable[[Tensor], Tensor]:
    """Features of what the autoencoder leaves of pictures."""
    return lambda pictures: extract(reconstructed(model, pictures))


def distance(features: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> Interval:
    """At this n; few pictures have no interval."""
    if min(len(features), len(reference)) < GROUPS:
        return Interval(frechet_distance(moments_of(features), moments_of(reference)))
    return frechet_intervals(features, reference).at_n

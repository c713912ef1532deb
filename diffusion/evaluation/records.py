"""From feature matrices to what results.json holds: each number with its interval and its circumstances.

    metric / feature network [/ what takes the samples' place]
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from diffusion import rng
from diffusion.evaluation.agreement import prompt_embeddings, retrieved
from diffusion.evaluation.features import ClipFeatures, FeatureExtractor
from diffusion.evaluation.features.hub import ClipImageFeatures
from diffusion.evaluation.features.inception import InceptionFeatures
from diffusion.evaluation.full import TWINS, Full, Sets
from diffusion.evaluation.memorisation import EXPECTED, Memorised, memorised
from diffusion.evaluation.metrics.clip_score import clip_score
from diffusion.evaluation.metrics.cmmd import cmmd
from diffusion.evaluation.metrics.frechet import frechet_intervals
from diffusion.evaluation.metrics.inception_score import inception_score
from diffusion.evaluation.metrics.intervals import GROUPS, Interval, of_mean, of_share
from diffusion.evaluation.metrics.kernel import kernel_distance
from diffusion.evaluation.metrics.neighbours import K_DENSITY, neighbours


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is measured between two sets of features.

    names    each with what is better, low or high
    of          (samples' features, reference's features, whether row i of both belong together) -> an interval for each
                name, None where too few pictures tell nothing
    where       of which feature networks it may be taken
    few         whether it is also for the few pictures of one class
    """

    names: Mapping[str, str]
    of: Callable[[Tensor, Tensor, bool], Sequence[Interval | None]]
    where: Callable[[FeatureExtractor], bool] = lambda extract: True
    few: bool = False


STRAIGHT = 4  # times the dimensions: fewer pictures lie on no straight line in 1/n


def both_frechet(a: Tensor, b: Tensor, paired: bool) -> tuple[Interval, Interval | None]:
    found = frechet_intervals(a, b, min(GROUPS, len(a), len(b)))
    return found.at_n, found.infinite if min(len(a), len(b)) >= STRAIGHT * a.shape[1] else None


def discrepancy(of: Callable[..., Interval]) -> Callable[[Tensor, Tensor, bool], tuple[Interval]]:
    return lambda a, b, paired: (of(a, b, min(GROUPS, len(a), len(b)), paired),)


def near(a: Tensor, b: Tensor, paired: bool) -> tuple[Interval | None, ...]:
    if paired or min(len(a), len(b)) <= K_DENSITY:  # each picture's nearest is its own twin; or there are no k others
        return 4 * (None,)
    found = neighbours(a, b)
    return found.precision, found.recall, found.density, found.coverage


def is_clip(extract: FeatureExtractor) -> bool:
    return isinstance(extract, ClipFeatures | ClipImageFeatures)


METRICS = (
    Metric({"frechet": "low", "frechet_infinite": "low"}, both_frechet, few=True),
    Metric({"kernel_distance": "low"}, discrepancy(kernel_distance), few=True),
    Metric({"cmmd": "low"}, discrepancy(cmmd), where=is_clip),
    Metric(dict.fromkeys(("precision", "recall", "density", "coverage"), "high"), near),
)


def record(found: Interval, better: str, n: int, *, extract: FeatureExtractor | None = None,
           reference: str | None = None, reference_n: int | None = None) -> dict:
    return {**vars(found), "n": n, "reference_n": reference_n, "features": extract and extract.name,
            "features_hash": extract and extract.hash, "reference": reference, "better": better}


def compared(metrics: Sequence[Metric], extract: FeatureExtractor, features: Tensor, others: Tensor, reference: str, *,
             before: str = "", behind: str = "", paired: bool = False) -> dict[str, dict]:
    """Each metric of the features against others."""
    scores = {}
    for metric in metrics:
        if metric.where(extract):
            for (name, better), found in zip(metric.names.items(), metric.of(features, others, paired), strict=True):
                if found is not None:
                    scores[f"{before}{name}/{extract.name}{behind}"] = record(
                        found, better, len(features), extract=extract, reference=reference, reference_n=len(others))
    return scores


def set_scores(sets: Sets, metrics: Sequence[Metric] = METRICS) -> dict[str, dict]:
    """Samples, and what stands beside them, against the reference; and its own halves against each other ("real")."""
    extract, reference = sets.extract, sets.reference
    reference.check(extract, sets.samples)
    scores = compared(metrics, extract, sets.samples, reference.features, reference.name)
    for name, features in sets.others.items():
        scores |= compared(metrics, extract, features, reference.features, reference.name, behind=f"/{name}",
                           paired=name == TWINS and reference is sets.test)
    if isinstance(extract, InceptionFeatures):
        for end, features in {"": sets.samples, "/training": sets.others["training"]}.items():
            found = inception_score(extract.logits(features))
            scores[f"inception_score/{extract.name}{end}"] = record(found, "high", len(features), extract=extract)
    a, b = reference.features[torch.randperm(len(reference), generator=rng.generator(0, 0, "halves"))].chunk(2)
    return scores | compared(metrics, extract, a, b, f"{reference.name} half", behind="/real")


def class_scores(sets: Sets, classes: Int64[Tensor, " n"], names: Sequence[str], metrics: Sequence[Metric] = METRICS
                 ) -> dict[str, dict]:
    """Samples of each class against the test pictures of it; a class with fewer than 20 on either side is left out."""
    scores, test = {}, sets.test
    for c, name in enumerate(names):
        ours, theirs = sets.samples[classes == c], test.features[test.labels[:, 0] == c]
        if min(len(ours), len(theirs)) >= GROUPS:
            scores |= compared([metric for metric in metrics if metric.few], sets.extract, ours, theirs,
                               f"{test.name}/{name}", before=f"class/{name}/")
    return scores


def memory_scores(sets: Sets) -> tuple[dict[str, dict], Memorised]:
    """The share of samples that lie too near to a training picture, beside the share to be expected."""
    mirrored = [[view] for view in sets.mirrored] if sets.mirrored else [[], []]
    found = memorised([sets.samples, *mirrored[0]], [sets.test.features, *mirrored[1]], sets.training.features)
    kept = record(found.share, "low", len(sets.samples), extract=sets.extract, reference=sets.training.name,
                  reference_n=len(sets.training))
    return {f"memorised/{sets.extract.name}": kept | {"expected": EXPECTED}}, found


def agreement_scores(sets: Sets, prompts: Sequence[str], rows: Tensor, content: Tensor) -> dict[str, dict]:
    """Of samples with their prompts, and of the test pictures whose captions these are ("real"), each once."""
    told, once, scores = prompt_embeddings(sets.extract.clip, prompts), rows[: len(sets.test)], {}
    for end, images, asked in (("", sets.samples, rows), ("/real", sets.test.features[once], once)):
        for name, found in {"clip_score": clip_score(images, told[: len(asked)]),
                            "retrieval": of_share(retrieved(images, told[: len(asked)], content[asked]))}.items():
            scores[f"{name}/{sets.extract.name}{end}"] = record(found, "high", len(images), extract=sets.extract,
                                                                reference=sets.test.name)
    return scores


def all_scores(full: Full, every: Sequence[Sets], quality: Mapping[str, Tensor]
               ) -> tuple[dict[str, dict], dict[str, Memorised]]:
    """What results.json lists, and memorisation by network."""
    scores, memory, split = {}, {}, full.data.split("test")
    for sets in every:
        scores |= set_scores(sets)
        if "class" in full.data.heads:
            scores |= class_scores(sets, split.labels[full.rows, 0], full.data.heads["class"])
        if is_clip(sets.extract) and full.model.text_encoder is not None:
            scores |= agreement_scores(sets, full.prompts, full.rows, split.content)
        if full.training_pictures:
            found, memory[sets.extract.name] = memory_scores(sets)
            scores |= found
    name = f"{full.data.fingerprint()}/test"
    return scores | {what: record(of_mean(values), "high", len(values), reference=name, reference_n=len(values))
                     for what, values in quality.items()}, memory

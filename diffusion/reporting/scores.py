"""Scores with their circumstances, and what may be said of their differences.

A score is a record {value, low, high, n, reference_n, features, features_hash, reference, better}, as evaluation=full
writes it; low and high end a 95 % interval, or are None. What train.py leaves in results.json becomes such records
here: shares of prompts get the interval that their n implies, the others have none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from diffusion.evaluation.comparable import comparable
from diffusion.evaluation.metrics.intervals import wilson
from diffusion.reporting.differences import flat, shown
from diffusion.reporting.run import Run

Score = Mapping[str, Any]

BETTER = {"loss": "low", "frechet": "low", "kernel_distance": "low", "prompts_right": "high", "class_agreement": "high",
          "judge_accuracy": "high", "accuracy": "high", "retrieval": "high", "psnr": "high", "ssim": "high"}
NO_SCORES = ("minutes", "stage_minutes", "peak_memory_gib")


def own_scores(run: Run) -> dict[str, Score]:
    """What train.py measured: every number of results.json that is no cost; losses come last."""
    found = [(name, v) for name, v in run.results.items() if isinstance(v, float) and name not in NO_SCORES]
    return {name: {"value": v, "low": None, "high": None, "better": _better(name), **_circumstances(name, v, run)}
            for name, v in sorted(found, key=lambda pair: pair[0].startswith("loss"))}


def _better(name: str) -> str | None:
    return next((better for start, better in BETTER.items() if name.startswith(start)), None)


def _circumstances(name: str, value: float, run: Run) -> dict[str, Any]:
    results, data = run.results, run.facts.get("data_fingerprint")
    if name.startswith("frechet"):
        extractor = "clip" if name.endswith("_clip") else "judge"
        details = results.get("frechet_details", {}).get(extractor, {})
        what = {"frechet_reconstruction": "reconstructions", "frechet_real": "real"}.get(
            name.removesuffix("_clip"), "samples")
        low, high = details.get("intervals", {}).get(what, (None, None))
        n = details.get("n") if what == "samples" else details.get("floor_n", details.get("n"))
        return {"low": low, "high": high, "n": n, "reference_n": details.get("reference_n"),
                "features": extractor, "features_hash": details.get("features"), "reference": f"{data}/test"}
    if name.startswith(("prompts_right", "class_agreement")):
        n, judge = results["samples_per_group"], results.get("evaluation", {}).get("judged_by")
        interval = wilson(value, n)
        return {"low": interval.low, "high": interval.high, "n": n, "reference": f"judge {judge}"}
    if name.startswith("loss"):  # a mean over the noise levels that the schedule visits, in the target's units
        latents = run.facts.get("parents", {}).get("autoencoder", data)
        return {"reference": f"{words(run.cfg.schedule)}, {words(run.cfg.parameterization)}, latents {latents}"}
    return {"reference": data}


def words(node: Mapping[str, Any]) -> str:
    """Shifted(base=Cosine, shift=-1.386)."""
    leaves = flat(OmegaConf.to_container(node))
    name, rest = shown(leaves.pop("")), ", ".join(f"{path}={shown(value)}" for path, value in leaves.items())
    return f"{name}({rest})" if rest else name


def marks(scores: Sequence[Score | None]) -> list[tuple[str, str]]:
    """For each of one metric's scores a mark and its reason.

    best    of the largest set whose members compare, and some other's interval lies beyond its own
    lead    the best value, but no more than that
    worse   its interval lies beyond the best's
    apart   not comparable with the best
    ""      an interval that overlaps the best's, or none; nothing to compare with; all equal
    """
    out = [("", "") for _ in scores]
    given = [i for i, s in enumerate(scores) if s and s["better"] in ("low", "high") and math.isfinite(s["value"])]
    group = max(([j for j in given if comparable(scores[i], scores[j]) is None] for i in given), key=len, default=[])
    if len(given) < 2:
        return out
    sign = 1 if scores[group[0]]["better"] == "low" else -1
    best = min(group, key=lambda i: sign * scores[i]["value"])
    beyond = [i for i in group if _beyond(scores[best], scores[i], sign)]
    for i in given:
        if i not in group:
            out[i] = "apart", comparable(scores[best], scores[i])
        elif i in beyond:
            out[i] = "worse", "its interval lies beyond the best's"
    if beyond:
        out[best] = "best", "some other's interval lies beyond its own"
    elif len({scores[i]["value"] for i in group}) > 1:
        out[best] = "lead", "the best value; no interval lies beyond its own"
    return out


def _beyond(best: Score, other: Score, sign: int) -> bool:
    if best["low"] is None or other["low"] is None:
        return False
    return other["low"] > best["high"] if sign == 1 else other["high"] < best["low"]


def difference(a: Score, b: Score) -> dict[str, float | None]:
    """b - a of independent estimates, with the interval that theirs imply (the square-and-add of Zou & Donner 2008):

    low = b - a - sqrt((b - b_low)^2 + (a_high - a)^2),   high = b - a + sqrt((b_high - b)^2 + (a - a_low)^2)

    Runs that share prompts and noise err alike, which makes it rather too long than too short.
    """
    value = b["value"] - a["value"]
    if a["low"] is None or b["low"] is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - math.hypot(b["value"] - b["low"], a["high"] - a["value"]),
            "high": value + math.hypot(b["high"] - b["value"], a["value"] - a["low"])}

"""Scores with their circumstances, and what may be said of their differences.

A score is a record {value, low, high, n, reference_n, features, features_hash, reference, better}, as evaluation=full
writes it; low and high end a 95 % interval, or are None. What train.py leaves in results.json becomes such records
here: shares of prompts get the interval that their n implies, the others have none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.evaluation.comparable import comparable
from diffusion.reporting.differences import shown
from diffusion.reporting.run import Run

Score = Mapping[str, Any]

Z = 1.959963984540054  # of a normal 95 % interval
BETTER = {"loss": "low", "frechet": "low", "kernel_distance": "low", "prompts_right": "high", "class_agreement": "high",
          "judge_accuracy": "high", "accuracy": "high", "retrieval": "high", "psnr": "high", "ssim": "high"}
NO_SCORES = ("minutes", "stage_minutes")


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), which stays within [0, 1] and is none too short at its ends."""
    centre, spread = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)


def own_scores(run: Run) -> dict[str, Score]:
    """What train.py measured: every number of results.json that is no cost."""
    results = run.results
    return {name: {"value": value, "low": None, "high": None, "better": _better(name), **_circumstances(name, value, run)}
            for name, value in results.items() if isinstance(value, float) and name not in NO_SCORES}


def _better(name: str) -> str | None:
    return next((better for start, better in BETTER.items() if name.startswith(start)), None)


def _circumstances(name: str, value: float, run: Run) -> dict[str, Any]:
    results, data = run.results, run.facts.get("data_fingerprint")
    if name.startswith("frechet"):
        extractor = "clip" if name.endswith("_clip") else "judge"
        details = results.get("frechet_details", {}).get(extractor, {})
        return {"n": details.get("n"), "reference_n": details.get("reference_n"), "features": extractor,
                "features_hash": details.get("features"), "reference": f"{data}/test"}
    if name.startswith(("prompts_right", "class_agreement")):
        n, judge = results["samples_per_group"], results.get("evaluation", {}).get("judged_by")
        low, high = wilson(value, n)
        return {"low": low, "high": high, "n": n, "reference": f"judge {judge}"}
    if name.startswith("loss"):  # a mean over the noise levels that the schedule visits, in the target's units
        latents = run.facts.get("parents", {}).get("autoencoder", data)
        return {"reference": f"{shown(run.cfg.schedule['_target_'])}, {shown(run.cfg.parameterization['_target_'])}, "
                             f"latents {latents}"}
    return {"reference": data}


def marks(scores: Sequence[Score | None]) -> list[tuple[str, str]]:
    """For each of one metric's scores a mark and the reason of it.

    best    of the largest set whose members compare
    worse   its interval lies beyond the best's
    open    the intervals overlap, or there is none: this difference says nothing
    apart   not comparable with the best
    ""      no score, nothing to compare with, or all equal
    """
    given = [i for i, s in enumerate(scores) if s and s["better"] in ("low", "high") and math.isfinite(s["value"])]
    alike = [[j for j in given if comparable(scores[i], scores[j]) is None] for i in given]
    group = max(alike, key=len, default=[])
    out = [("", "") for _ in scores]
    if len(group) == 1 and len(given) == 1 or not group:
        return out
    sign = 1 if scores[group[0]]["better"] == "low" else -1
    best = min(group, key=lambda i: sign * scores[i]["value"])
    for i in given:
        if i not in group:
            out[i] = ("apart", comparable(scores[best], scores[i]))
        elif scores[i]["value"] == scores[best]["value"]:
            out[i] = ("best", "best") if i == best or len(group) > 2 else ("", "")
        else:
            out[i] = _against(scores[best], scores[i], sign)
    if len(group) == 1 or len({scores[i]["value"] for i in group}) == 1:
        out = [("", "") if i in group else mark for i, mark in enumerate(out)]
    return out


def _against(best: Score, other: Score, sign: int) -> tuple[str, str]:
    if best["low"] is None or other["low"] is None:
        return "open", "no interval"
    apart = other["low"] > best["high"] if sign == 1 else other["high"] < best["low"]
    return ("worse", "its interval lies beyond the best's") if apart else ("open", "its interval overlaps the best's")


def difference(a: Score, b: Score) -> dict[str, float | None]:
    """b - a of independent estimates, with the interval that theirs imply (Zou & Donner 2008, Eq. 2 of the sum):

    low = b - a - sqrt((b - b_low)^2 + (a_high - a)^2),   high = b - a + sqrt((b_high - b)^2 + (a - a_low)^2)

    Runs that share prompts and noise err alike, which makes it rather too long than too short.
    """
    value = b["value"] - a["value"]
    if a["low"] is None or b["low"] is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - math.hypot(b["value"] - b["low"], a["high"] - a["value"]),
            "high": value + math.hypot(b["high"] - b["value"], a["value"] - a["low"])}

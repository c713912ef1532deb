"""Which lines a report draws: schedules, losses by noise level, learning curves, quality against cost."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from diffusion.config import ConfigError, build
from diffusion.reporting.network_evaluations import network_evaluations, own_network_evaluations
from diffusion.reporting.plot import Line, Plot, thinned
from diffusion.reporting.run import Run
from diffusion.reporting.scores import own_scores
from diffusion.reporting.tables import HOW

BINS = "train/loss_log_snr_"
SHOWN = 14.0  # log-SNRs beyond this are 8-bit pictures, or pure noise
IMAGES = "images seen"


def schedules(runs: Sequence[Run], labels: Sequence[str], trusted: Iterable[str]) -> Plot | None:
    """log-SNR over t. A schedule of a package that is not trusted is left out."""
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    lines = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        if not any(name.startswith(BINS) for row in run.rows for name in row):
            continue
        try:
            log_snr = build(run.cfg.schedule, trusted).log_snr(t)
        except (ConfigError, TypeError, ValueError):  # of a package that is not trusted, or of another version
            continue
        points = [(x, y) for x, y in zip(t.tolist(), log_snr.tolist(), strict=True) if abs(y) <= SHOWN]
        lines.append(Line(label, i, points))
    return Plot("Schedules", "t", "log-SNR", lines) if lines else None


def loss_by_noise(runs: Sequence[Run], labels: Sequence[str]) -> Plot | None:
    """Stairs over the bins of log-SNR: the mean loss in the last tenth of the training."""
    lines = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        late: dict[str, list[float]] = defaultdict(list)
        for row in run.rows:
            if row["step"] > 0.9 * run.steps_done:
                for name in row:
                    if name.startswith(BINS):
                        late[name].append(row[name])
        bins = sorted((*_ends(name), sum(values) / len(values)) for name, values in late.items())
        if bins:
            width = min((b - a for a, b, _ in bins if math.isfinite(b - a)), default=2.0)
            points = [(x, y) for a, b, y in bins for x in (a if math.isfinite(a) else b - width,
                                                           b if math.isfinite(b) else a + width)]
            lines.append(Line(label, i, points))
    ticks = sorted({x for line in lines for x, _ in line.points})[1:-1]  # the outer bins are open
    return Plot("Loss by noise level", "log-SNR (noise left, data right)", "loss", lines, log_y=True, ticks=ticks
                ) if lines else None


def _ends(column: str) -> tuple[float, float]:
    low, high = column.removeprefix(BINS).split("..")
    return float(low), float(high)


def learning(runs: Sequence[Run], labels: Sequence[str]) -> list[Plot]:
    """The training loss, and each score on held-out data: averaged weights (EMA) drawn through, raw ones dashed."""
    names = dict.fromkeys(name for run in runs for row in run.rows for name in row)
    scores = dict.fromkeys(name.removesuffix("_raw").removesuffix("_ema") for name in names
                           if name.startswith(("validation/", "evaluation/")))
    plots = []
    titles = {score: score.replace("validation/", "held-out ").replace("evaluation/", "") for score in scores}
    for score, title in {"train/loss": "training loss", **titles}.items():
        lines = [Line(label + weights, i, thinned(points), stroke=int(end == "_raw"))
                 for i, (run, label) in enumerate(zip(runs, labels, strict=True))
                 for end, weights in (("", ""), ("_ema", ", EMA"), ("_raw", ", raw"))
                 if (points := run.curve(score + end))]
        if lines:
            plots.append(Plot(title.capitalize(), IMAGES, title, lines, log_y="loss" in score))
    return plots


def quality(runs: Sequence[Run], labels: Sequence[str], trusted: Iterable[str]) -> list[Plot]:
    """Each score against network evaluations a picture, where a run was scored at several of these."""
    curves: dict[str, dict[tuple[int, str], dict[float, dict]]] = defaultdict(lambda: defaultdict(dict))
    varied = [key for key in HOW if key != "steps"
              and len({str(record.get(key)) for run in runs for record in run.evaluations}) > 1]
    for i, run in enumerate(runs):
        for record in run.evaluations:
            cost = network_evaluations(run, record, trusted)
            how = (i, ", ".join([labels[i], *(f"{key} {record.get(key)}" for key in varied)]))
            for name, score in record["scores"].items():
                if cost is not None and not name.startswith("class/") and name.count("/") < 2:
                    curves[name][how][cost] = score
    for run in runs:  # jobs of a sweep that differ in their steps of sampling alone make one line
        others = {key: value for key, value in run.settings.items() if key != "sampling_steps"}
        first = next(j for j, other in enumerate(runs)
                     if others == {key: value for key, value in other.settings.items() if key != "sampling_steps"})
        cost = own_network_evaluations(run, trusted)
        for name, score in own_scores(run).items():
            if cost is not None and not name.startswith("loss"):
                curves[name][first, re.sub(r",?sampling_steps=\d+", "", labels[first])][cost] = score
    plots = []
    for name, by_run in curves.items():
        lines = []
        for (i, label), scores in by_run.items():
            points = [(x, s["value"]) for x, s in sorted(scores.items())]
            ends = [(s["low"], s["high"]) for _, s in sorted(scores.items())]
            stroke = [line.colour for line in lines].count(i)
            lines.append(Line(label, i, points, bars=ends, stroke=stroke, dots=True))
        if any(len(line.points) > 1 for line in lines):
            plots.append(Plot(name, "network evaluations a picture", name, lines, log_x=True))
    return plots

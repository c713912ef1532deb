"""The report: one self-contained HTML page, which opens without a network and escapes every text of a run."""

import datetime
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from diffusion import __version__
from diffusion.config import TRUSTED
from diffusion.files import write_text
from diffusion.reporting import curves
from diffusion.reporting.differences import differences, labels, shown
from diffusion.reporting.pictures import unpaired, views
from diffusion.reporting.run import Run, runs_of
from diffusion.reporting.tables import evaluation_tables, own_table

LOSS_UNITS = ("data", "autoencoder", "parents", "parameterization", "weighting", "objective")


def write(paths: Iterable[str | Path], out: Path, trust: Iterable[str] = ()) -> list[Run]:
    """The report of these runs and sweeps. Returns the runs. Raises FileNotFoundError."""
    runs = runs_of(paths)
    write_text(out, page(runs, trust))
    return runs


def page(runs: Sequence[Run], trust: Iterable[str] = ()) -> str:
    """The HTML. `trust` names packages of one's own that the runs' schedules may come from."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"shown": shown, "number": number, "whole": whole}
    names, trusted = distinct(runs), (*TRUSTED, *trust)
    apart = differences([run.settings for run in runs])
    return environment.get_template("report.html").render(
        runs=runs, labels=names, differences=apart, tables=[own_table(runs, names), *evaluation_tables(runs, names)],
        views=views(runs), unpaired=unpaired(runs), schedules=curves.schedules(runs, names, trusted),
        loss_by_noise=curves.loss_by_noise(runs, names), learning=curves.learning(runs, names),
        quality=curves.quality(runs, names, trusted), costs=[cost(run) for run in runs],
        units=[group for group in LOSS_UNITS if any(path.split(".")[0] == group for path in apart)],
        averages=[group for group in ("schedule", "time_sampler") if any(p.split(".")[0] == group for p in apart)],
        version=__version__, made=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"))


def distinct(runs: Sequence[Run]) -> list[str]:
    """What each run is called on the page."""
    names = labels([run.name for run in runs])
    return [name if names.count(name) == 1 else f"{name} ({run.folder.name})" for name, run in zip(names, runs)]


def cost(run: Run) -> dict[str, Any]:
    """Images seen, time and memory, of this model and with everything that was trained for it."""
    rates = [row["train/images_per_second"] for row in run.rows if "train/images_per_second" in row]
    plan = run.plan.get("acceleration", {})
    return {"steps": run.results.get("steps", run.steps_done), "batch": run.cfg.batch,
            "images": run.results.get("steps", run.steps_done) * run.cfg.batch,
            "minutes": run.results.get("stage_minutes"), "all_minutes": run.results.get("minutes"),
            "evaluation_minutes": sum(e.get("minutes") or 0 for e in run.evaluations) or None,
            "rate": median(rates) if rates else None, "memory": run.results.get("peak_memory_gib"),
            "machine": ", ".join(filter(None, [run.plan.get("device"), plan.get("precision"),
                                               "compiled" if plan.get("compile") else None]))}


def number(value: float | None) -> str:
    """Four digits."""
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def whole(value: float | None) -> str:
    """1234567 -> "1,234,567"."""
    return "" if value is None else f"{value:,.0f}"

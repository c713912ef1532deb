"""A run as its folder tells of it: configuration, curves, scores, grids. Nothing is trained, drawn or changed.

A sweep's folder holds a link to each job's run, named by the job's overrides, and beside it the job's own results
(NAME.json) and grid (NAME.png): jobs that differ in sampling alone share a run.
"""

import csv
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from diffusion.checkpoint import header


@dataclasses.dataclass(frozen=True)
class Run:
    """name: the overrides of a sweep's job, or experiment/key.

    rows         metrics.csv: one dict a logged step
    results      results.json, or the job's own
    evaluations  evaluation/*/results.json, sorted by folder
    facts        what the model file says of itself; nothing before the run has finished
    grid         the labelled pictures of these results
    """

    name: str
    folder: Path
    cfg: DictConfig
    rows: list[dict[str, float]]
    results: dict[str, Any]
    evaluations: list[dict[str, Any]]
    plan: dict[str, Any]
    facts: dict[str, Any]
    grid: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as it was asked for, with what these pictures were drawn by, and the parents' keys."""
        asked = OmegaConf.to_container(self.cfg, resolve=False)
        drawn = {"sampling_steps" if name == "steps" else name: value
                 for name, value in self.results.get("sampling", {}).items() if name != "weights"}
        scored = {name: value for name, value in self.results.get("evaluation", {}).items() if name != "judged_by"}
        parents = {name: {**(asked.get("parents") or {}).get(name, {}), "key": key}
                   for name, key in self.facts.get("parents", {}).items()}
        return asked | drawn | ({"evaluation": scored} if scored else {}) | ({"parents": parents} if parents else {})

    @property
    def state(self) -> str:
        return "finished" if self.results.get("finished") else f"not finished, step {self.steps_done}"

    @property
    def commands(self) -> list[str]:
        """What was typed for this run and its evaluations, as far as it was written down."""
        return [record["command"] for record in (self.results, *self.evaluations) if "command" in record]

    @property
    def steps_done(self) -> int:
        """Updates that the curves show."""
        return int(max((row["step"] for row in self.rows), default=0))

    def curve(self, column: str) -> list[tuple[float, float]]:
        """(images seen, value) of one column."""
        return [(row["step"] * self.cfg.batch, row[column]) for row in self.rows if column in row]


def runs_of(paths: Iterable[str | Path]) -> list[Run]:
    """Each run once, in the order given; a sweep's folder stands for its jobs.

    Raises FileNotFoundError where a path is neither.
    """
    found: dict[tuple[str, Path], Run] = {}
    for path in (Path(path).expanduser() for path in paths):
        if (path / "config.yaml").exists():
            jobs = [path]
        else:
            jobs = sorted(p for p in path.glob("*") if (p / "config.yaml").exists())
        if not jobs:
            raise FileNotFoundError(f"{path}: expected is a run's folder, with config.yaml, or a sweep's folder, with "
                                    "links to runs")
        for run in map(read, jobs):
            # jobs that differ in sampling alone share a run: its evaluations stand under the first of them
            shared = any(other.folder == run.folder for other in found.values())
            found.setdefault((run.name, run.folder), dataclasses.replace(run, evaluations=[]) if shared else run)
    return list(found.values())


def read(path: Path) -> Run:
    """The run in a folder, or the job behind a sweep's link."""
    folder, job = path.resolve(), path.with_name(f"{path.name}.json")
    own = _json(folder / "results.json")
    results, name, grid = own, f"{folder.parent.name}/{folder.name}", folder / "samples" / "grid.png"
    if path.is_symlink() and job.exists():
        results, name = _json(job), path.name.replace("|", "/")
        kept = path.with_name(f"{path.name}.png")
        grid = kept if kept.exists() or results.get("sampling") != own.get("sampling") else grid
    plan, model = folder / "plan.yaml", folder / "model.safetensors"
    evaluations = map(_json, sorted(folder.glob("evaluation/*/results.json")))
    return Run(name=name, folder=folder, cfg=OmegaConf.load(folder / "config.yaml"), rows=_rows(folder / "metrics.csv"),
               results=results, plan=yaml.safe_load(plan.read_text()) if plan.exists() else {},
               evaluations=[record for record in evaluations if record.get("scores")],
               facts=header(model)["facts"] if model.exists() else {}, grid=grid if grid.exists() else None)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _rows(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

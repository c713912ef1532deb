"""The folder of a sweep: a link to each job's run, and one table and one page of all results so far."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from diffusion.files import write_json, write_text
from diffusion.paths import relative
from diffusion.reporting import page
from diffusion.stages import Stage

log = logging.getLogger(__name__)


def begin(stage: Stage) -> None:
    """In a sweep: link the run, so that a job that fails is seen, too. Otherwise nothing."""
    folder = sweep_folder()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / name_of(stage)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(stage.folder, folder))


def record(stage: Stage, results: dict) -> None:
    """In a sweep: keep the job's results and write the table anew. Otherwise nothing."""
    folder = sweep_folder()
    if folder is None:
        return
    name = name_of(stage)
    # jobs that differ in sampling alone share a run
    write_json(folder / f"{name}.json", results)
    grid = stage.folder / "samples" / "grid.png"
    if grid.exists():
        shutil.copyfile(grid, folder / f"{name}.png")
    lines = table({path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))})
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    log.info("sweep so far (%s):\n%s", relative(folder / "table.md"), "\n".join(lines))
    try:
        page.write([folder], folder / "report.html")
        log.info("side by side: %s", relative(folder / "report.html"))
    except Exception:  # the job itself is done, and the next ones shall come
        log.exception("the sweep's page could not be written; python -m diffusion.report %s", relative(folder))


def name_of(stage: Stage) -> str:
    """The job's overrides, as a file's name; with its experiment, where another's job has that name."""
    name = ",".join(varied()).replace("/", "|") or stage.key
    link = sweep_folder() / name
    if link.is_symlink() and link.resolve().parent.name != stage.experiment:
        name = f"experiment={stage.experiment},{name}"
    if len(name.encode()) <= 200:
        return name
    return f"{name[:60]}...{hashlib.blake2b(name.encode(), digest_size=5).hexdigest()}"


def sweep_folder() -> Path | None:
    """Where this sweep's table is; a job in a process group of its own is told through the environment."""
    if "DIFFUSION_SWEEP" in os.environ:
        return Path(os.environ["DIFFUSION_SWEEP"])
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir)
    return None


def varied() -> list[str]:
    """This job's overrides."""
    return [o for o in HydraConfig.get().overrides.task if not o.startswith(("experiment=", "paths.", "hydra."))]


def table(runs: dict[str, dict]) -> list[str]:
    """Markdown: one line a run, one column a number that any run has."""
    skipped = ("steps", "minutes", "stage_minutes", "samples_per_group")
    columns = [name for name in dict.fromkeys(k for r in runs.values() for k, v in r.items() if isinstance(v, float))
               if name not in skipped]
    lines = ["| run | " + " | ".join([*columns, "minutes"]) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, results in runs.items():
        cells = [f"{results[c]:.4g}" if c in results else "" for c in [*columns, "minutes"]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines

"""Where numbers go: metrics.csv always, wandb or TensorBoard on request. A resumed run goes on in its own."""

import csv
import io
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from diffusion.config import build, plain
from diffusion.files import write_text
from diffusion.stages import Stage


class Csv(pl.loggers.logger.Logger):
    """metrics.csv, one row per logged step. Rows of steps that a resumed run will repeat are replaced.

    Lightning's own CSVLogger deletes the file of an earlier start. A row is appended; a new column, or a row before the
    last, writes the file anew.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.path, self.rows = Path(folder) / "metrics.csv", {}
        self.columns: list[str] = []  # of the file
        self.last, self.begins = -1, 0  # the last row's step, and where it begins
        self.goes_on = self.path.exists()
        if self.goes_on:
            lines = self.path.read_text().splitlines(keepends=True)
            for row in csv.DictReader(line for line in lines if line.endswith("\n")):  # a kill may tear the last one
                step = int(row.pop("step"))
                self.rows[step] = {k: float(v) for k, v in row.items() if v != ""}

    name = version = None

    @property
    @rank_zero_experiment
    def experiment(self) -> "Csv":
        return self

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        anew = self.goes_on or step < self.last or not metrics.keys() <= set(self.columns) or not self.path.exists()
        if self.goes_on:  # what came after the state that the run goes on from is done again
            self.rows = {s: row for s, row in self.rows.items() if s <= step}
            self.goes_on = False
        self.rows.setdefault(step, {}).update({k: float(v) for k, v in metrics.items()})
        if anew:
            self._rewrite()
        else:
            self._append(step)

    @rank_zero_only
    def log_hyperparams(self, params, *args, **kwargs) -> None:
        """config.yaml has them."""

    def _rewrite(self) -> None:
        self.columns = sorted({name for row in self.rows.values() for name in row})
        *before, self.last = sorted(self.rows)
        text = line(["step", *self.columns]) + "".join(map(self._row, before))
        self.begins = len(text.encode())
        write_text(self.path, text + self._row(self.last))

    def _append(self, step: int) -> None:
        """The last row, or what it has become."""
        with open(self.path, "r+b") as file:
            if step != self.last:
                self.begins = file.seek(0, os.SEEK_END)
            file.seek(self.begins)
            file.truncate()
            file.write(self._row(step).encode())
        self.last = step

    def _row(self, step: int) -> str:
        return line([step, *(self.rows[step].get(name, "") for name in self.columns)])


def line(values: Iterable) -> str:
    """Of a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def loggers_of(stage: Stage) -> list:
    """metrics.csv and what logger= adds; the run's key is its name everywhere, so a resumed run keeps its id."""
    chosen = [Csv(stage.folder)]
    for node in (plain(stage.cfg.logger) or {}).values():
        logger = build(node, stage.cfg.trusted)
        chosen.append(logger(stage=stage))
    return chosen


def wandb(*, stage: Stage, project: str = "diffusion", offline: bool = False, group: str | None = None,
          entity: str | None = None):
    """Weights & Biases: curves, pictures and the configuration. `offline` needs no account; sync later."""
    from pytorch_lightning.loggers import WandbLogger

    run = f"{stage.experiment}-{stage.key}"
    if begun_anew := len(list((stage.folder / "before").glob("*"))):  # resume=never
        run += f"-{1 + begun_anew}"
    return WandbLogger(project=project, offline=offline, id=run, name=run, save_dir=str(stage.folder), entity=entity,
                       group=group, resume="allow", config=plain(stage.cfg))


def tensorboard(*, stage: Stage):
    """Event files in the run's folder."""
    from pytorch_lightning.loggers import TensorBoardLogger

    if find_spec("tensorboard") is None:
        raise ValueError("logger=tensorboard needs the package tensorboard: pip install 'diffusion[tensorboard]'")
    return TensorBoardLogger(str(stage.folder), name="tensorboard", version="")

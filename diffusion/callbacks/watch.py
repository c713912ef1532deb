"""Held-out scores and pictures at a cadence, counted in updates. Neither touches the training trajectory."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from diffusion.grids import to_image


def due(training, every: int | None) -> bool:
    """Whether the update that just ended is one of every `every`, or the last."""
    done = training.updates_done
    return bool(every) and done > 0 and (done % every == 0 or done == training.steps)


class Validation(pl.Callback):
    """Logs the stage's scores on held-out data every `every` updates."""

    def __init__(self, every: int | None):
        self.every, self.seen = every, -1

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if due(training, self.every) and self.seen != training.updates_done:
            self.seen = training.updates_done
            training.log_line({f"validation/{name}": value for name, value in training.validate().items()})


class Pictures(pl.Callback):
    """Writes the stage's grids to samples/ in the run's folder, and to loggers that take pictures, every so often."""

    def __init__(self, every: int | None):
        self.every, self.seen = every, -1

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if due(training, self.every) and self.seen != training.updates_done:
            self.seen = training.updates_done
            for name, grid in training.pictures().items():
                if trainer.is_global_zero:
                    self._write(trainer, name, grid, training.updates_done)

    def _write(self, trainer, name: str, grid: Tensor, step: int) -> None:
        picture = to_image(grid)
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{name}_{step:06}.png")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(name, [picture], step=step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, grid, step)

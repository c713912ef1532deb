"""Held-out scores and pictures at a cadence, counted in updates. Neither touches the training trajectory."""

from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from diffusion.callbacks.at_updates import AtUpdates
from diffusion.grids import to_image


class Validation(AtUpdates):
    """Logs the stage's scores on held-out data every `every` updates."""

    def at(self, trainer, training) -> None:
        training.log_line({f"validation/{name}": value for name, value in training.validate().items()})


class Pictures(AtUpdates):
    """Writes the stage's grids to samples/ in the run's folder, and to loggers that take pictures, every so often."""

    def at(self, trainer, training) -> None:
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

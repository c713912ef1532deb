"""Saves what other widths of a power-function average are made of after training: see `diffusion.snapshots`."""

from pathlib import Path

from diffusion import snapshots
from diffusion.callbacks.at_updates import AtUpdates
from diffusion.ema import PowerEMA


class Snapshots(AtUpdates):
    """At the average's own cadence and after the last update; nothing where the average is of another kind.

    It comes before Saving: the state to go on from is never ahead of its snapshots, and those that are ahead of it are
    written again, bit-equal. folder is the run's; before is that of the run that this one goes on from.
    """

    def __init__(self, folder: Path, before: Path | None = None):
        super().__init__(None)  # the average has its own
        self.folder, self.before = folder, before

    def on_train_start(self, trainer, training) -> None:
        ema = getattr(training, "ema", None)
        if isinstance(ema, PowerEMA) and trainer.is_global_zero and self.before not in (None, self.folder):
            snapshots.take_over(self.before, self.folder, ema.snapshot_every)

    def cadence(self, training) -> int | None:
        ema = getattr(training, "ema", None)
        return ema.snapshot_every if isinstance(ema, PowerEMA) else None

    def at(self, trainer, training) -> None:
        if trainer.is_global_zero:
            shadows = {width: average.shadows for width, average in training.ema.averages.items()}
            snapshots.write(self.folder, training.updates_done, shadows)

"""Saves what other widths of a power-function average are made of after training: see `diffusion.snapshots`."""

from pathlib import Path

import pytorch_lightning as pl

from diffusion import snapshots
from diffusion.callbacks.watch import due
from diffusion.ema import PowerEMA


class Snapshots(pl.Callback):
    """At the average's own cadence and after the last update; nothing where the average is of another kind.

    It comes before Saving: the state to go on from is never ahead of its snapshots, and those that are ahead of it are
    written again, bit-equal. folder is the run's; before is that of the run that this one goes on from.
    """

    def __init__(self, folder: Path, before: Path | None = None):
        self.folder, self.before, self.seen = folder, before, -1

    def on_train_start(self, trainer, training) -> None:
        ema = getattr(training, "ema", None)
        if isinstance(ema, PowerEMA) and trainer.is_global_zero and self.before not in (None, self.folder):
            snapshots.take_over(self.before, self.folder, ema.snapshot_every)

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        ema = getattr(training, "ema", None)
        if not (isinstance(ema, PowerEMA) and due(training, ema.snapshot_every) and self.seen != training.updates_done):
            return
        self.seen = training.updates_done
        if trainer.is_global_zero:
            snapshots.write(self.folder, self.seen, {width: a.shadows for width, a in ema.averages.items()})

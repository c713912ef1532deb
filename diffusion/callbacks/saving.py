"""Keeps what is needed to go on: last.ckpt at a cadence in time, at the end, and when a signal asks the run to stop.

A file is written beside the old one, flushed and moved into place, so a full disk or a kill never costs the last good
state. Signals only raise a flag; all processes look at it together after a step, so none waits for another in vain.
"""

import os
import signal
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.plugins.io import TorchCheckpointIO

from diffusion.files import atomic


class Interrupted(RuntimeError):
    """A signal ended the run after its state was saved; the same command goes on."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """torch.save that cannot damage the file it replaces."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        try:
            atomic(Path(path), lambda temporary: torch.save(checkpoint, temporary))
        except (OSError, RuntimeError) as error:
            free = os.statvfs(Path(path).parent)
            raise OSError(f"{path} could not be written ({error}); {free.f_bavail * free.f_frsize / 2**20:.0f} MiB are "
                          "free there. The state saved before is intact") from error


class Saving(pl.Callback):
    """path: last.ckpt; minutes: between two saves; again: what goes on from there."""

    def __init__(self, path: str | Path, minutes: float = 5.0, again: str = "the same command"):
        self.path, self.minutes, self.again, self.signal = Path(path), minutes, again, None

    def on_train_start(self, trainer, training) -> None:
        self.last = time.monotonic()
        self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number, frame) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: stop at once, with what was saved before
        self.signal = number

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % training.accumulate:
            return  # between two passes of one update
        done, alone = training.updates_done, trainer.world_size == 1
        over = done == training.steps or trainer.should_stop  # a longer run may go on from here: extend_from
        asked, due = self.signal is not None, over or time.monotonic() - self.last > 60 * self.minutes
        if not alone:
            flags = torch.tensor([float(asked), float(due)])  # on the CPU: no device is waited for
            dist.all_reduce(flags, dist.ReduceOp.MAX)
            asked, due = (flag > 0 for flag in flags.tolist())
        if asked or due:
            training.tell()  # before it is interrupted
            trainer.save_checkpoint(self.path)
            self.last = time.monotonic()
        if asked:
            raise Interrupted(f"stopped by a signal at step {done} of {training.steps}; {self.again} goes on from "
                              f"{self.path}")

    def on_train_end(self, trainer, training) -> None:
        self._restore()

    def on_exception(self, trainer, training, exception) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in getattr(self, "previous", {}).items():
            signal.signal(number, handler)

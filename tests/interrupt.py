"""A callback that ends its own run by a signal, once."""

import os
import signal

import pytorch_lightning as pl


class SignalAt(pl.Callback):
    """SIGTERM after `step` updates, unless the run began there or later."""

    def __init__(self, step: int):
        self.step = step

    def on_train_start(self, trainer, training) -> None:
        self.armed = training.updates_done < self.step

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if self.armed and training.updates_done == self.step:
            self.armed = False
            os.kill(os.getpid(), signal.SIGTERM)


class StopAfter(pl.Callback):
    """What early stopping does, after a number of steps."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        trainer.should_stop = training.updates_done >= self.step

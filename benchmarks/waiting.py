"""How long a training spends between its steps. A module of its own: a configuration names the class."""

import time

import pytorch_lightning as pl

UNCOUNTED = 10  # steps at the start


class Waiting(pl.Callback):
    """Seconds in a step and between two, of the last training."""

    steps = between = 0.0
    ended: float | None = None

    def on_train_start(self, trainer, training) -> None:
        Waiting.steps, Waiting.between, Waiting.ended = 0.0, 0.0, None

    def on_train_batch_start(self, trainer, training, batch, batch_idx) -> None:
        self.began = time.perf_counter()
        if Waiting.ended is not None and batch_idx >= UNCOUNTED:
            Waiting.between += self.began - Waiting.ended

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        Waiting.ended = time.perf_counter()
        if batch_idx >= UNCOUNTED:
            Waiting.steps += Waiting.ended - self.began

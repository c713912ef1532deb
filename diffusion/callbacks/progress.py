"""How far a stage is: a bar with the time left on a terminal, plain lines elsewhere."""

import logging
import sys
import time

import pytorch_lightning as pl
from tqdm import tqdm

from diffusion.progress import duration

log = logging.getLogger(__name__)


class Progress(pl.Callback):
    """stage: the name to show; every: seconds between two plain lines."""

    def __init__(self, stage: str, every: float = 20.0):
        self.stage, self.every, self.bar = stage, every, None

    def on_train_start(self, trainer, training) -> None:
        self.start_step, self.start, self.last = training.updates_done, time.perf_counter(), time.perf_counter()
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(total=training.steps, initial=self.start_step, desc=self.stage, unit="step",
                            dynamic_ncols=True, smoothing=0.05)

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        done, now = training.updates_done, time.perf_counter()
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
            if "train/loss" in trainer.callback_metrics:
                self.bar.set_postfix(loss=f"{float(trainer.callback_metrics['train/loss']):.4f}", refresh=False)
        elif trainer.is_global_zero and (now - self.last > self.every or done == training.steps):
            self.last = now
            left = (training.steps - done) * (now - self.start) / max(done - self.start_step, 1)
            loss = trainer.callback_metrics.get("train/loss")
            log.info("%s: step %d of %d%s, %s left", self.stage, done, training.steps,
                     "" if loss is None else f", loss {float(loss):.4f}", duration(left))

    def on_train_end(self, trainer, training) -> None:
        self._close()

    def on_exception(self, trainer, training, exception) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

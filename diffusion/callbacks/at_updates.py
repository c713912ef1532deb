"""What happens at a cadence that is counted in updates."""

import abc

import pytorch_lightning as pl


class AtUpdates(pl.Callback, abc.ABC):
    """Calls `at` after every `cadence` updates and after the last, once each, however many passes an update has. What
    that takes does not count into the training's pictures a second."""

    def __init__(self, every: int | None):
        self.every = every

    def cadence(self, training) -> int | None:
        """Updates from one call to the next; None: never."""
        return self.every

    @abc.abstractmethod
    def at(self, trainer, training) -> None:
        """What is done then."""

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % training.accumulate:
            return  # between two passes of one update
        done, every = training.updates_done, self.cadence(training)
        if every and (done % every == 0 or done == training.steps):
            with training.off_the_clock():
                self.at(trainer, training)

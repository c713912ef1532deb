"""What happens at a cadence, on a training of few updates."""

import time
import types
from contextlib import contextmanager

import pytest
import torch

from diffusion.callbacks.at_updates import AtUpdates
from diffusion.training.base import Training


class Noting(AtUpdates):
    def __init__(self, every):
        super().__init__(every)
        self.seen = []

    def at(self, trainer, training):
        assert training.away
        self.seen.append(training.updates_done)


class FewUpdates(types.SimpleNamespace):
    @contextmanager
    def off_the_clock(self):
        self.away = True
        yield
        self.away = False


def test_what_is_off_the_clock_does_not_count():
    training = types.SimpleNamespace(device=torch.device("cpu"), _since=(7, time.perf_counter()))
    before = training._since[1]
    with Training.off_the_clock(training):
        time.sleep(0.05)
    assert training._since[0] == 7 and training._since[1] >= before + 0.05


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("every", "begun", "seen"), [(2, 0, [2, 4, 5]), (None, 0, []), (2, 2, [4, 5]), (9, 0, [5])])
def test_each_due_update_is_met_once_however_many_passes_it_has(accumulate, every, begun, seen):
    callback = Noting(every)
    training = FewUpdates(accumulate=accumulate, steps=5, updates_done=begun)
    for i in range(begun * accumulate, 5 * accumulate):
        training.updates_done = (i + 1) // accumulate
        callback.on_train_batch_end(None, training, None, None, i)
    assert callback.seen == seen

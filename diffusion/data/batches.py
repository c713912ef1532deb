"""Which pictures make up which batch: a function of (seed, step), so ranks, accumulation, workers and interruptions
change nothing.

The order of the data is the concatenation of one permutation per epoch; batch `step` is its next `batch` entries.
Accumulation and ranks split a batch into consecutive slices of rows.
"""

import functools
import os
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffusion import rng

Fetch = Callable[[Tensor, int, slice], dict]  # (pictures, step, rows of the batch) -> the tensors of these rows


def positions(n: int, start: int, stop: int, seed: int) -> Int64[Tensor, " b"]:
    """Entries start..stop of the endless order over n pictures."""
    parts = []
    for epoch in range(start // n, (stop - 1) // n + 1):
        parts.append(_permutation(n, seed, epoch)[max(start - epoch * n, 0) : stop - epoch * n])
    return torch.cat(parts)


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Int64[Tensor, " n"]:
    return torch.randperm(n, generator=rng.generator(seed, epoch, "order"))


class MicroBatches(Dataset):
    """Item m is what this rank sees in pass m: passes `accumulate` at a time make one step."""

    def __init__(self, n: int, fetch: Fetch, *, batch: int, steps: int, seed: int, rank: int = 0, world: int = 1,
                 accumulate: int = 1):
        if batch % (world * accumulate):
            raise ValueError(f"batch = {batch} cannot be split over {world} processes with accumulate = {accumulate}: "
                             f"it must be a multiple of {world * accumulate}")
        self.n, self.fetch, self.batch, self.steps, self.seed = n, fetch, batch, steps, seed
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, m: int) -> dict:
        step, part = divmod(m, self.accumulate)
        size = self.batch // (self.world * self.accumulate)
        first = (part * self.world + self.rank) * size
        start = step * self.batch + first
        rows = slice(first, first + size)
        index = positions(self.n, start, start + size, self.seed)
        return {"step": step, "rows": (rows.start, rows.stop), **self.fetch(index, step, rows)}


class FromStep(Sampler[int]):
    """Passes in order, beginning where the run stands."""

    def __init__(self, passes: int, first: Callable[[], int]):
        self.passes, self.first = passes, first

    def __len__(self) -> int:
        return self.passes

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first(), self.passes))


def in_a_session_of_its_own(worker: int) -> None:
    """A signal to the training's process group is the training's: a worker that it ended would end the training before
    its state is saved."""
    os.setsid()


class StepLoader(DataLoader):
    """A loader that begins at the step its trainer has reached; in memory without workers, else with them."""

    def __init__(self, batches: MicroBatches, updates_done: Callable[[], int], workers: int = 0):
        first = FromStep(len(batches), lambda: updates_done() * batches.accumulate)
        super().__init__(batches, batch_size=None, sampler=first, num_workers=workers,
                         persistent_workers=workers > 0, generator=torch.Generator(),
                         worker_init_fn=in_a_session_of_its_own)

    def state_dict(self) -> dict:
        """Nothing: the step says it all. Lightning asks before it trusts a mid-epoch resume."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass

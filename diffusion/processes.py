"""The processes of a run: how many, which one this is, and how they agree. With one process everything is a no-op."""

import atexit
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> None:
    """Join the group that the launcher described, with a backend for each kind of device; once per process."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(leave)


def leave() -> None:
    """A process that ends while its group's threads run may abort, its work done."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def from_first(value):
    """The first process' value, on all."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def by_first(make: Callable[[], Any]) -> Any:
    """What make() gives on the first process, on all."""
    return from_first(make() if rank() == 0 else None)


def all_values(value) -> list:
    """Every process' value, in order, on all."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def mean(x: Tensor) -> Tensor:
    """The mean over processes."""
    if world() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world()


def wait() -> None:
    """Until all are here."""
    if world() > 1:
        dist.barrier()

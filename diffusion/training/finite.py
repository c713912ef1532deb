"""Gradients that are not finite never reach the weights, and nothing waits for the device to find out."""

import collections
import contextlib

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor


class NonFinite(RuntimeError):
    """The gradient is not a number; that update was not made."""


class FiniteGradients:
    """Looks at the norm of each update's gradient, before the update is made.

    A CPU's is read at once. On a CUDA device a fused optimizer is told on the device to leave the weights alone
    (`found_inf`, as a gradient scaler tells it), and the host reads the norm LAG updates later: on all processes alike.
    """

    LAG = 4

    def __init__(self):
        self.awaited: collections.deque[tuple[Tensor, torch.cuda.Event, int, float]] = collections.deque()

    def look(self, norm: Tensor, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Raises NonFinite, on a CUDA device of an earlier step too."""
        rate = optimizer.param_groups[0]["lr"]
        if not (norm.is_cuda and optimizer.defaults.get("fused")):
            refuse(norm, step, rate)
            return
        optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
        arrived = torch.cuda.Event()
        host = torch.empty((), dtype=norm.dtype, pin_memory=True).copy_(norm.detach(), non_blocking=True)
        arrived.record()
        self.awaited.append((host, arrived, step, rate))
        if len(self.awaited) > self.LAG:
            self._next()

    def wait(self) -> None:
        """Until every norm was looked at. Raises NonFinite."""
        while self.awaited:
            self._next()

    def _next(self) -> None:
        norm, arrived, step, rate = self.awaited.popleft()
        arrived.synchronize()
        refuse(norm, step, rate)


class LossScaling(MixedPrecision):
    """Lightning's, without its autocast: which operations are in float16 is said where they are."""

    def forward_context(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


def refuse_scale(scale: float, step: int) -> None:
    """Raise NonFinite where a gradient scaler, which halves its scale at every gradient that is not finite, has come
    below 1: it is not the scale."""
    if scale < 1:
        raise NonFinite(f"the gradients before step {step} are not finite in float16, even with the loss scaled by "
                        f"{scale:.2g}: those updates were not made")


def refuse(norm: Tensor, step: int, rate: float) -> None:
    """Raise NonFinite unless the norm is finite."""
    if not torch.isfinite(norm):
        raise NonFinite(f"the gradient is not finite at step {step} (learning rate {rate:.2g}): the update was not "
                        "made")

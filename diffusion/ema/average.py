"""What every moving average of weights shares:

    shadow <- beta_t shadow + (1 - beta_t) parameter    at update t = 1, 2, ...
"""

import abc
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Average(abc.ABC):
    """Float32 shadows, one per named parameter; buffers are left alone. The module's `to` moves none.

    facts  what a model file says of its average
    """

    facts: Mapping[str, Any] = {}

    def __init__(self, module: nn.Module):
        self.updates = 0
        self.parameters = dict(module.named_parameters())
        self.shadows = {name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()}
        self.inside = False

    @abc.abstractmethod
    def beta(self, t: int) -> float:
        """The decay of update t."""

    @torch.no_grad()
    def update(self) -> None:
        """Once after every step of the optimizer."""
        if self.inside:
            raise RuntimeError("update() inside swapped(): the average would be averaged with itself")
        self.updates += 1
        parameters = [p.float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.shadows.values()), parameters, 1 - self.beta(self.updates))

    @contextlib.contextmanager
    def swapped(self, module: nn.Module) -> Iterator[nn.Module]:
        """The averages in place of the parameters; after the block, error or not, the parameters bit for bit.

        Values are copied into the same memory: compiled graphs, gradient buckets and optimizers stay valid.
        """
        if self.inside:
            raise RuntimeError("swapped() inside swapped(): the averages are in place already")
        parameters = dict(module.named_parameters())
        self._same_names(parameters)
        own = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            self.inside = True
            _copy(self.shadows, parameters)
            yield module
        finally:
            _copy(own, parameters)
            self.inside = False

    def to(self, device: str | torch.device) -> "Average":
        """Laid out in memory as the parameters are now: what lies alike is updated in one go."""
        self.shadows = {name: torch.empty_like(self.parameters[name], dtype=torch.float32, device=device).copy_(shadow)
                        for name, shadow in self.shadows.items()}
        return self

    def state_dict(self) -> dict:
        return {"updates": self.updates, "shadows": dict(self.shadows)}

    def load_state_dict(self, state: dict) -> None:
        self._same_names(state["shadows"])
        self.updates = state["updates"]
        _copy(state["shadows"], self.shadows)

    def _same_names(self, tensors: dict[str, Tensor]) -> None:
        if tensors.keys() != self.shadows.keys():
            missing, unknown = self.shadows.keys() - tensors.keys(), tensors.keys() - self.shadows.keys()
            raise ValueError(f"EMA: parameters missing {sorted(missing)[:3]}, unknown {sorted(unknown)[:3]}")


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])

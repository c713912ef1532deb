"""An exponential moving average of a module's parameters.

    shadow <- decay_n shadow + (1 - decay_n) parameter,    decay_n = min(decay, (1 + n) / (10 + n))

after n updates (TensorFlow's ExponentialMovingAverage). The warm-up is 1 - 9 / (10 + n): the average reaches
back over a ninth of the run, however short that is, and the initial weights are forgotten like n^-9.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class EMA:
    """Float32 shadows, one per named parameter; buffers are left alone. The module's `to` moves none."""

    def __init__(self, module: nn.Module, decay: float = 0.9999):
        self.decay = decay
        self.updates = 0
        self.parameters = dict(module.named_parameters())
        self.shadows = {name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()}
        self.inside = False

    @torch.no_grad()
    def update(self) -> None:
        """Once after every step of the optimizer."""
        if self.inside:
            raise RuntimeError("EMA.update() inside EMA.swapped(): the average would be averaged with itself")
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = [p.detach().float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.shadows.values()), parameters, 1 - decay)
        self.updates += 1

    @contextlib.contextmanager
    def swapped(self, module: nn.Module) -> Iterator[nn.Module]:
        """The averages in place of the parameters; after the block, error or not, the parameters bit for bit.

        Values are copied into the same memory: compiled graphs, gradient buckets and optimizers stay valid.
        """
        if self.inside:
            raise RuntimeError("EMA.swapped() inside EMA.swapped(): the averages are in place already")
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

    def to(self, device: str | torch.device) -> "EMA":
        self.shadows = {name: shadow.to(device) for name, shadow in self.shadows.items()}
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

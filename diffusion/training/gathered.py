"""An optimizer's gradients beside each other in one tensor, where a CUDA device is slower to launch than to compute."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Gathered:
    """The gradients of some parameters as one vector, and each as the part of it where it lies from update to update:
    their norm is one kernel, and a recording finds them again.

    parameters  those whose gradient is clipped
    others      of the same optimizer, that are not
    """

    def __init__(self, parameters: Sequence[nn.Parameter], others: Sequence[nn.Parameter] = ()):
        self.parameters, self.clipped = [*parameters, *others], sum(p.numel() for p in parameters)
        self.gradients: list[Tensor] = []

    def gather(self) -> None:
        """After a backward pass; the parameters' `grad` is here then. What has none is left without, and counts 0."""
        if not self.gradients:
            self._lay_out()
        here = [(p, mine) for p, mine in zip(self.parameters, self.gradients, strict=True) if p.grad is not None]
        if len(here) < len(self.parameters):
            self.vector.zero_()
        torch._foreach_copy_([mine for _, mine in here], [p.grad for p, _ in here])
        for p, mine in here:
            p.grad = mine

    def clip(self, most: float) -> Tensor:
        """torch's clip_grad_norm_ of what was gathered: the norm before."""
        clipped = self.vector[:self.clipped]
        norm = torch.linalg.vector_norm(clipped)
        clipped.mul_((most / (norm + 1e-6)).clamp(max=1))
        return norm

    def _lay_out(self) -> None:
        """Each in the strides in which it arrived: what lies alike is copied in one go."""
        sizes = [p.numel() for p in self.parameters]
        self.vector = torch.zeros(sum(sizes), dtype=self.parameters[0].dtype, device=self.parameters[0].device)
        for p, part in zip(self.parameters, self.vector.split(sizes), strict=True):
            like = p if p.grad is None else p.grad
            self.gradients.append(part.as_strided(like.shape, torch.empty_like(like, device="meta").stride()))

"""What a denoiser answers, and what a sampler yields.

A denoiser sees x_t = alpha_t x_0 + sigma_t eps and answers with both unknowns. They agree with x_t unless
guidance takes eps from another branch (CFG++).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """Of shape "b *d" each. f tells Var[x_s | x_t] for every s, where it is learned: see `ddpm_learned`."""

    x0: Tensor
    eps: Tensor
    f: Tensor | None = None

    def with_x0(self, x0: Tensor, alpha: Tensor, sigma: Tensor) -> "Estimate":
        """Another x_0, and the eps that leaves alpha x_0 + sigma eps as it was (eps itself where sigma = 0)."""
        ratio = torch.where(sigma == 0, 0.0, alpha / sigma)
        return self._replace(x0=x0, eps=self.eps + ratio * (self.x0 - x0))


class Step(NamedTuple):
    """The state x (b *d) that sampling has reached at time t (one number), and the x_0 that led there."""

    t: Tensor
    x: Tensor
    x0: Tensor


Denoise = Callable[[Tensor, Tensor], Estimate]  # (x_t, t); its conditioning and guidance are inside
Noise = Callable[[Tensor], Tensor]  # z ~ N(0, 1), shaped like its argument
Sampler = Callable[..., Iterator[Step]]  # (denoise, schedule, x, ts, noise); ts falls, float64 on the CPU

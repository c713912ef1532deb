"""Sampling rehearsed on four numbers, with a network that echoes: what a sampler, grid and guidance refuse, and what
they cost, without a model."""

import functools
from collections.abc import Callable, Iterator

import torch

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Sampler, Step


@torch.no_grad()
def rehearsal(denoiser: Denoiser, *, sampler: Sampler, discretization: Callable, guidance: Callable, steps: int,
              captioned: bool = True, guide: Denoiser | None = None) -> Iterator[Step]:
    """The sampler's steps. `guide` is for a guidance that takes one. Raises what the parts raise."""
    told = Conditioning(pooled=torch.zeros(1, 1)) if captioned else None
    if guide is not None:
        guidance = functools.partial(guidance, guide=guide)
    schedule = denoiser.schedule
    ts = discretization(schedule, steps)
    x = schedule.prior(ts[0], torch.linspace(-1, 1, 4)[None])
    yield from sampler(guidance(denoiser, told, told), schedule, x, ts, torch.zeros_like)

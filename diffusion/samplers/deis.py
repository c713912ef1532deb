"""DEIS (Zhang & Chen 2023): eps, extrapolated by a polynomial in lambda, integrated exactly against the schedule.

    x_s / alpha_s = x_t / alpha_t + sum_j eps_j int_t^s L_j d(sigma / alpha),    sigma / alpha = e^(-lambda)

L_j are the Lagrange polynomials of the points seen, in lambda = log(alpha / sigma), as diffusers has it. In the paper's
own variable t (tAB-DEIS, its Eq. 15) not every schedule is smooth: on tables it loses its order, and on Laplace's
schedule, whose steps in t differ by orders of magnitude, the samples. Steps that start without signal or end in data
are DDIM. Order 3 begins with a step of Heun's method, one evaluation more: a first step of order 1 would leave order 2
for the whole.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.samplers.dpm_solver import half_log_snr
from diffusion.samplers.heun import heun_step, no_signal
from diffusion.schedules import NoiseSchedule

NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))


def deis(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
    *,
    order: int = 3,
) -> Iterator[Step]:
    """`order` 1 (DDIM) to 3: how many evaluations the polynomial goes through; one a step."""
    if order not in (1, 2, 3):
        raise ValueError(f"deis: order must be 1, 2 or 3, not {order}")
    seen: list[tuple[Tensor, Tensor]] = []  # (lambda, eps), the latest first
    for t, s in pairwise(ts):
        x0, eps, _ = denoise(x, t)
        now, then = half_log_snr(schedule, t), half_log_snr(schedule, s)
        if no_signal(schedule, t) or schedule.sigma(s) == 0:
            x = schedule.alpha(s) * x0 + schedule.sigma(s) * eps
        elif order == 3 and not seen:
            seen = [(now, eps)]
            x = heun_step(denoise, schedule, x, t, s, x0, eps)
        else:
            seen = [(now, eps), *seen[: order - 1]]
            weights = _integrals(torch.stack([at for at, _ in seen]), now, then)
            change = sum(c * e for c, (_, e) in zip(weights, seen, strict=True))
            x = schedule.alpha(s) * (x / schedule.alpha(t) + change)
        yield Step(s, x, x0)


def _integrals(points: Float64[Tensor, " n"], now: Float64[Tensor, ""], then: Float64[Tensor, ""]
               ) -> Float64[Tensor, " n"]:
    """-int L_j e^(-lambda) dlambda for every j, by Gauss-Legendre quadrature."""
    at = (now + then) / 2 + (then - now) / 2 * NODES
    density = (now - then) / 2 * WEIGHTS * torch.exp(-at)
    out = []
    for j, point in enumerate(points):
        others = torch.cat([points[:j], points[j + 1 :]])[:, None]
        out.append((density * ((at - others) / (point - others)).prod(0)).sum())
    return torch.stack(out)

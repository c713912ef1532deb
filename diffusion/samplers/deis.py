"""DEIS (Zhang & Chen 2023): eps, extrapolated by a polynomial in t, integrated exactly against the schedule.

    x_s / alpha_s = x_t / alpha_t + sum_j eps_j int L_j(tau) d(sigma / alpha)(tau)        (tAB-DEIS, their Eq. 15)

L_j are the Lagrange polynomials of the times seen. The integrals are taken by parts, so that only sigma / alpha itself
is needed, by Gauss-Legendre quadrature. Steps that start without signal or end in data are DDIM. Order 3 begins with a
step of Heun's method, one evaluation more: a first step of order 1 would leave order 2 for the whole.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
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
    seen: list[tuple[Tensor, Tensor]] = []  # (t, eps), the latest first
    for t, s in pairwise(ts):
        x0, eps, _ = denoise(x, t)
        if no_signal(schedule, t) or schedule.sigma(s) == 0:
            x = schedule.alpha(s) * x0 + schedule.sigma(s) * eps
        elif order == 3 and not seen:
            seen = [(t, eps)]
            x = heun_step(denoise, schedule, x, t, s, x0, eps)
        else:
            seen = [(t, eps), *seen[: order - 1]]
            times = torch.stack([time for time, _ in seen])
            change = sum(c * e for c, (_, e) in zip(_integrals(schedule, times, t, s), seen, strict=True))
            x = schedule.alpha(s) * (x / schedule.alpha(t) + change)
        yield Step(s, x, x0)


def _integrals(schedule: NoiseSchedule, times: Float64[Tensor, " n"], t: Float64[Tensor, ""], s: Float64[Tensor, ""]
               ) -> Float64[Tensor, " n"]:
    """int_t^s L_j d(sigma / alpha) = [L_j sigma / alpha] - int_t^s sigma / alpha L_j' dtau for every j."""
    tau = (t + s) / 2 + (s - t) / 2 * NODES
    ratio = torch.exp(-schedule.log_snr(tau) / 2)
    first, last = (torch.exp(-schedule.log_snr(end) / 2) for end in (t, s))
    out = []
    for j in range(len(times)):
        L = np.poly1d([1.0])
        for k in range(len(times)):
            if k != j:
                L = L * np.poly1d([1.0, -times[k].item()]) / (times[j] - times[k]).item()
        slope = torch.from_numpy(np.polyval(L.deriv(), tau.numpy()))
        inner = (s - t) / 2 * (WEIGHTS * ratio * slope).sum()
        out.append(L(s.item()) * last - L(t.item()) * first - inner)
    return torch.stack(out)

"""UniPC (Zhao et al. 2023): a multi-step predictor, and a corrector that reuses the evaluation at the predicted point.

    x_s = sigma_s / sigma_t x_t - alpha_s (e^(-h) - 1) D_0 - alpha_s B(h) sum_k rho_k (D_k - D_0) / r_k

D_k is x_0 as it was seen at lambda_k, r_k = (lambda_k - lambda_t) / h; B(h) = e^(-h) - 1 (their B_2). The corrector is
the same sum with the new point (r = 1) in it. Order p + 1 with one evaluation a step (their Theorem 3.1), but not above
3: the first step has nothing to look back at.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.estimate import Denoise, Noise, Step
from diffusion.samplers.dpm_solver import half_log_snr
from diffusion.schedules import NoiseSchedule

History = list[tuple[Tensor, Tensor]]  # (lambda, x_0), the latest first


def unipc(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *d"],
    ts: Float64[Tensor, " times"],
    noise: Noise = torch.randn_like,
    *,
    order: int = 2,
) -> Iterator[Step]:
    """`order` p of the predictor, 1 to 3: Algorithms 5 to 8, predicting the data."""
    if order not in (1, 2, 3):
        raise ValueError(f"unipc: order must be 1, 2 or 3, not {order}")
    seen: History = []
    before = None  # x and time where the last step started
    for t, s in pairwise(ts):
        now, then = half_log_snr(schedule, t), half_log_snr(schedule, s)
        x0 = denoise(x, t).x0
        if seen:  # the corrector: once more from the last point, now that x_0 here is known
            x = _step(schedule, *before, t, seen, new=(now, x0))
        seen, before = [(now, x0), *seen[: order - 1]] if now.isfinite() else [], (x, t)
        if seen and then.isfinite():
            x = _step(schedule, x, t, s, seen)
        else:
            x = schedule.sigma(s) / schedule.sigma(t) * x - schedule.alpha(s) * torch.expm1(now - then) * x0
        yield Step(s, x, x0)


def _step(schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, seen: History,
          new: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """From t to s through the points seen, and the new one for the corrector."""
    now, d0 = seen[0]
    h = half_log_snr(schedule, s) - now
    points = [*seen[1:], *([new] if new else [])]
    out = schedule.sigma(s) / schedule.sigma(t) * x - schedule.alpha(s) * torch.expm1(-h) * d0
    if not points:
        return out
    r = torch.stack([(at - now) / h for at, _ in points])
    differences = [(d - d0) / rk for (_, d), rk in zip(points, r, strict=True)]
    weights = _weights(r, h)
    total = sum(w * difference for w, difference in zip(weights, differences, strict=True))
    return out - schedule.alpha(s) * torch.expm1(-h) * total


def _weights(r: Float64[Tensor, " n"], h: Float64[Tensor, ""]) -> Float64[Tensor, " n"]:
    """rho: sum_k rho_k r_k^(i - 1) = i! phi_(i + 1)(-h) / (B(h) / -h), i = 1 .. n. One point alone takes 1/2, which is
    of the same order."""
    if len(r) == 1:
        return torch.full_like(r, 0.5)
    n, B = len(r), torch.expm1(-h)
    phi, right = B / -h, []
    for i in range(1, n + 1):
        phi = (phi - 1 / math.factorial(i)) / -h
        right.append(phi * math.factorial(i) * -h / B)
    powers = torch.stack([r**i for i in range(n)])
    return torch.linalg.solve(powers, torch.stack(right))

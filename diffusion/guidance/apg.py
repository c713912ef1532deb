"""Adaptive projected guidance (Sadat et al. 2025): classifier-free guidance less what oversaturates.

    Delta  = x_0(c) - x_0(null) + beta Delta(step before)           beta < 0: away from where the last steps pushed
    Delta' = Delta min(1, r / ||Delta||)
    x_0    = x_0(c) + (w - 1) (orthogonal + eta parallel)           w = 1: off

Delta' is split along x_0(c): its parallel part scales the picture's contrast, its orthogonal part adds detail. eps
follows, so that alpha_t x_0 + sigma_t eps = x_t.
"""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Denoise, Estimate
from diffusion.guidance.branches import branches
from diffusion.guidance.interval import within


def apg(
    denoiser: Denoiser,
    cond: Conditioning | None,
    null: Conditioning | None,
    scale: float,
    eta: float = 0.0,
    norm_threshold: float = math.inf,
    momentum: float = -0.5,
    interval: Sequence[float] = (-math.inf, math.inf),
) -> Denoise:
    """One doubled batch where guidance acts, a single one elsewhere. A model without captions stays as it is.

    eta             share of the parallel part; 1, with no threshold and no momentum, is classifier-free guidance
    norm_threshold  r, in units of ||x_0||, which grows like the root of the latent's size
    momentum        beta; Delta is remembered from evaluation to evaluation, of which some samplers make two a step
    interval        in log-SNR, ends included: guide only there (Kynkaanniemi et al. 2024)

    Raises ValueError where r is not positive, |beta| is not below 1, or the interval is empty.
    """
    acts = within(interval)
    if norm_threshold <= 0:
        raise ValueError(f"guidance=apg: guidance.norm_threshold must be positive (.inf: none), got {norm_threshold}")
    if not -1 < momentum < 1:
        raise ValueError(f"guidance=apg: guidance.momentum must lie between -1 and 1, got {momentum}")
    if cond is None or scale == 1:
        return functools.partial(denoiser, cond=cond)
    predict = branches(denoiser, cond, null)
    delta: Tensor | float = 0.0

    def denoise(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> Estimate:
        nonlocal delta
        schedule = denoiser.schedule
        if not acts(schedule, t):
            return denoiser(x_t, t, cond)
        y_cond, y_null, f = predict(x_t, t)
        told, untold = (denoiser.estimate(y, x_t, t) for y in (y_cond, y_null))
        delta = told.x0 - untold.x0 + momentum * delta
        update = (delta * (norm_threshold / _norm(delta)).clamp(max=1)).flatten(1)
        along = F.normalize(told.x0.flatten(1), dim=1)
        parallel = torch.linalg.vecdot(update, along)[:, None] * along
        update = (update - parallel + eta * parallel).view_as(x_t)
        guided = told.with_x0(told.x0 + (scale - 1) * update, schedule.alpha(t), schedule.sigma(t))
        return guided._replace(f=f)

    return denoise


def _norm(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *one"]:
    return x.square().sum(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()

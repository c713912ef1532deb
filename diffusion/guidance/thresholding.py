"""Dynamic thresholding (Saharia et al. 2022, Section 2.3): back into [-1, 1], out of which strong guidance drives x_0.

    s = max(1, the p-th percentile of |x_0|, picture by picture)        x_0' = clip(x_0, -s, s) / s

For pixels only: where latents end is not known. p = 1 clips nothing and scales the picture to its largest value.
alpha_t x_0 + sigma_t eps stays what it was, so under CFG++ eps leaves eps(null) by what x_0 gives up.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.estimate import Denoise, Estimate
from diffusion.schedules import NoiseSchedule


def thresholded(denoise: Denoise, schedule: NoiseSchedule, percentile: float) -> Denoise:
    """Any Denoise, with its x_0 inside [-1, 1] and the eps that goes with it; `percentile` as a share, 0.995."""

    def clipped(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> Estimate:
        estimate = denoise(x_t, t)
        size = estimate.x0.abs().flatten(1).quantile(percentile, dim=1).clamp(min=1)
        s = size.view(-1, *[1] * (x_t.ndim - 1))
        x0 = torch.clamp(estimate.x0, -s, s) / s
        return estimate.with_x0(x0, schedule.alpha(t), schedule.sigma(t))

    return clipped

"""Guidance turns a conditional denoiser into a sharper one: two denoisings become one.

    y = y(null) + w (y(c) - y(null))      w = 1: off      (Ho & Salimans 2022, Eq. 6; their w is our w - 1)

x_0 is affine in y at a given x_t, so this guides x_0, eps and v alike.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Denoise, Estimate


def classifier_free(
    denoiser: Denoiser,
    cond: Conditioning,
    null: Conditioning,
    scale: float,
    interval: tuple[float, float] = (-math.inf, math.inf),
    rescale: float = 0.0,
) -> Denoise:
    """One doubled batch where guidance acts, a single one elsewhere.

    null      the empty caption, or a negative prompt; one row serves the whole batch
    interval  in log-SNR, ends included: guide only there (Kynkaanniemi et al. 2024)
    rescale   how far to pull the guided y back to the standard deviation of y(c) (Lin et al. 2023, Eq. 15-16)
    """
    lowest, highest = interval
    both = cond.cat(null if len(null) == len(cond) else null.expand(len(cond)))

    def denoise(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> Estimate:
        if scale == 1 or not lowest <= denoiser.schedule.log_snr(t) <= highest:
            return denoiser(x_t, t, cond)
        y_cond, y_null = denoiser.predict(torch.cat([x_t, x_t]), t, both).chunk(2)
        y = y_null + scale * (y_cond - y_null)
        if rescale > 0:
            y = rescale * y * _std(y_cond) / _std(y) + (1 - rescale) * y
        return denoiser.estimate(y, x_t, t)

    return denoise


def _std(y: Float[Tensor, "b *d"]) -> Float[Tensor, "b *one"]:
    return y.std(dim=tuple(range(1, y.ndim)), keepdim=True)

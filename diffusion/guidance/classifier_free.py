"""Classifier-free guidance (Ho & Salimans 2022, Eq. 6; their w is our w - 1).

    y = y(null) + w (y(c) - y(null))      w = 1: off

x_0 is affine in y at a given x_t, so this guides x_0, eps and v alike.
"""

import functools
import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Denoise, Estimate
from diffusion.guidance.branches import branches
from diffusion.guidance.interval import within


def classifier_free(
    denoiser: Denoiser,
    cond: Conditioning | None,
    null: Conditioning | None,
    scale: float,
    interval: Sequence[float] = (-math.inf, math.inf),
    rescale: float = 0.0,
) -> Denoise:
    """One doubled batch where guidance acts, a single one elsewhere. A model without captions stays as it is.

    null      the empty caption, or a negative prompt; one row serves the whole batch
    interval  in log-SNR, ends included: guide only there (Kynkaanniemi et al. 2024)
    rescale   how far to pull the guided y back to the standard deviation of y(c), 0 to 1 (Lin et al. 2023, Eq. 15-16)

    Raises ValueError for an empty interval or another rescale.
    """
    acts = within(interval)
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance.rescale = {rescale}: 0 (off) to 1")
    if cond is None or scale == 1:
        return functools.partial(denoiser, cond=cond)
    predict = branches(denoiser, cond, null)

    def denoise(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> Estimate:
        if not acts(denoiser.schedule, t):
            return denoiser(x_t, t, cond)
        y_cond, y_null, f = predict(x_t, t)
        y = y_null + scale * (y_cond - y_null)
        if rescale > 0:
            y = rescale * y * _std(y_cond) / _std(y) + (1 - rescale) * y
        return denoiser.estimate(y, x_t, t)._replace(f=f)

    return denoise


def _std(y: Float[Tensor, "b *d"]) -> Float[Tensor, "b *one"]:
    return y.std(dim=tuple(range(1, y.ndim)), keepdim=True)

"""What the network says with the caption and without it: y(c) and y(null), from one doubled batch.

A learned variance is not guided: f is that of the caption.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser, split


def branches(denoiser: Denoiser, cond: Conditioning, null: Conditioning) -> Callable:
    """The function (x_t, t) -> (y(c), y(null), f). One row of `null` serves the whole batch."""
    both = cond.cat(null if len(null) == len(cond) else null.expand(len(cond)))

    def predict(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> tuple[Tensor, Tensor, Tensor | None]:
        of_cond, of_null = denoiser.predict(torch.cat([x_t, x_t]), t, both).chunk(2)
        y_cond, f = split(of_cond, x_t)
        y_null, _ = split(of_null, x_t)
        return y_cond, y_null, f

    return predict

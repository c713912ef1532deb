"""What the network says with the caption and without it: y(c) and y(null), from one doubled batch."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser


def branches(denoiser: Denoiser, cond: Conditioning, null: Conditioning) -> Callable:
    """The function (x_t, t) -> (y(c), y(null)). One row of `null` serves the whole batch."""
    both = cond.cat(null if len(null) == len(cond) else null.expand(len(cond)))

    def predict(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> tuple[Tensor, Tensor]:
        y_cond, y_null = denoiser.predict(torch.cat([x_t, x_t]), t, both).chunk(2)
        return y_cond, y_null

    return predict

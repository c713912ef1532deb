"""Autoguidance (Karras et al. 2024): away from what a worse version of the same model says.

    x_0 = D_0 + w (D_1 - D_0)      D_1 the model, D_0 its guide: smaller, or trained for less long;  w = 1: off

Both see the same noise level, whatever their schedules: with t' such that l'(t') = l(t), the guide is shown
x_t' = (alpha' / alpha) x_t, whose x_0 and eps are those of x_t.
"""

import functools

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Denoise, Estimate
from diffusion.schedules import NoiseSchedule


def autoguidance(
    denoiser: Denoiser, cond: Conditioning | None, null: Conditioning | None, scale: float, guide: Denoiser
) -> Denoise:
    """Two networks, one batch each. The null condition, and with it a negative prompt, is not used.

    guide  of the same latents; told the same captions, or a network that ignores them. It is moved to where the
           denoiser computes.

    Raises ValueError where the guide's schedule ends before the noise that the denoiser's reaches.
    """
    noisiest, guides = denoiser.schedule.log_snr_range[0], guide.schedule.log_snr_range[0]
    if guides > noisiest:
        raise ValueError(f"autoguidance: the guide's {guide.schedule} goes down to a log-SNR of {guides:.4g}, the "
                         f"model's {denoiser.schedule} to {noisiest:.4g}: the guide cannot follow it there")
    if scale == 1:
        return functools.partial(denoiser, cond=cond)
    guide = guide.beside(denoiser)

    def denoise(x_t: Float[Tensor, "b *d"], t: Float64[Tensor, ""]) -> Estimate:
        good = denoiser(x_t, t, cond)
        bad = guide(*same_noise(x_t, t, denoiser.schedule, guide.schedule), cond)
        x0, eps = (b + scale * (g - b) for g, b in zip(good[:2], bad[:2], strict=True))
        return good._replace(x0=x0, eps=eps)

    return denoise


def same_noise(
    x_t: Float[Tensor, "b *d"], t: Float64[Tensor, ""], here: NoiseSchedule, there: NoiseSchedule
) -> tuple[Float[Tensor, "b *d"], Float64[Tensor, ""]]:
    """x_t and t as another schedule has them, at the same log-SNR: alpha' / alpha = sigma' / sigma."""
    u = there.t_of(here.log_snr(t))
    of_data, of_noise = there.alpha(u) / here.alpha(t), there.sigma(u) / here.sigma(t)
    return torch.where(here.log_snr(t) > 0, of_data, of_noise) * x_t, u

"""A loss that learns how uncertain it is at each noise level (Karras et al. 2024, Section 2 and Eq. 21).

    L = loss / exp(u(l)) + u(l)        least where exp(u) = E[loss | l]: every level then counts alike

u is linear in fixed random waves of the log-SNR; it is trained beside the network and left behind with the optimizer.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.objectives.diffusion import diffusion_loss
from diffusion.weightings import Weighting


class Uncertainty(nn.Module):
    """`features` waves of c_noise = -l / 8, of frequencies N(0, 1) and random phases; u starts at 0."""

    def __init__(self, *, features: int = 128):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("frequency", torch.randn(features, generator=draw), persistent=False)
        self.register_buffer("phase", torch.rand(features, generator=draw), persistent=False)
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def u(self, log_snr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The logarithm of the loss expected at these noise levels; beyond |l| = 20 it is that of 20."""
        c_noise = -log_snr.clamp(-20, 20).to(self.phase, non_blocking=True) / 8
        waves = math.sqrt(2) * torch.cos(2 * math.pi * (c_noise[:, None] * self.frequency + self.phase))
        with torch.autocast(waves.device.type, enabled=False):
            return self.linear(waves)[:, 0]

    def forward(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "b *d"],
        t: Float[Tensor, " b"],
        eps: Float[Tensor, "b *d"],
        cond: Conditioning | None = None,
        weighting: Weighting | None = None,
    ) -> Float[Tensor, " b"]:
        """Per sample, the mean over the data axes."""
        loss = diffusion_loss(denoiser, x0, t, eps, cond, weighting)
        u = self.u(denoiser.schedule.log_snr(t))
        return loss / u.exp() + u

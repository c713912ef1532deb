"""The loss of a denoiser, in the network's own units.

    L = w(l_t) / x0_factor ||y - (a_t x_0 + b_t eps)||^2,    y = network(alpha_t x_0 + sigma_t eps)

Without a weighting the factor is 1: L_simple for eps (Ho et al. 2020, Eq. 14), the v loss for v.
"""

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser, split
from diffusion.weightings import Weighting


def diffusion_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b *d"],
    t: Float[Tensor, " b"],
    eps: Float[Tensor, "b *d"],
    cond: Conditioning | None = None,
    weighting: Weighting | None = None,
) -> Float[Tensor, " b"]:
    """Per sample, the mean over the data axes."""
    y = denoiser.predict(denoiser.schedule.diffuse(x0, t, eps), t, cond)
    return squared_error(denoiser, y, x0, t, eps, weighting)


def squared_error(
    denoiser: Denoiser,
    prediction: Float[Tensor, "b ..."],
    x0: Float[Tensor, "b *d"],
    t: Float[Tensor, " b"],
    eps: Float[Tensor, "b *d"],
    weighting: Weighting | None = None,
) -> Float[Tensor, " b"]:
    """The loss of what the network has answered."""
    schedule, parameterization = denoiser.schedule, denoiser.parameterization
    y, _ = split(prediction, x0)
    loss = reduce((y - parameterization.target(x0, eps, schedule, t)).square(), "b ... -> b", "mean")
    if weighting is None:
        return loss
    weight = weighting(schedule.log_snr(t)) / parameterization.x0_factor(schedule, t)
    return loss * weight.to(loss, non_blocking=True)

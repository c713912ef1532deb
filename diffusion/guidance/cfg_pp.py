"""CFG++ (Chung et al. 2024): guided data, unguided noise, so that the way stays where noisy pictures lie.

    x_0 = x_0(null) + lambda (x_0(c) - x_0(null))        eps = eps(null)        0 <= lambda <= 1

With DDIM: x_s = alpha_s x_0 + sigma_s eps(null) (their Algorithm 2). lambda = 0 samples without the caption; lambda = 1
takes x_0 from the caption but is not the same as no guidance, whose noise is eps(c). alpha_t x_0 + sigma_t eps is not
x_t: a sampler must step from the estimate alone. Of those here only `ddim` does, with any eta; one that works with x_t
and x_0 would find eps anew and be classifier-free guidance with w = lambda, one that works with x_t and eps would never
see the caption. `diffusion.latent.Sampling` refuses them.
"""

import functools

from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.estimate import Denoise, Estimate
from diffusion.guidance.branches import branches


def cfg_pp(denoiser: Denoiser, cond: Conditioning | None, null: Conditioning | None, scale: float) -> Denoise:
    """`scale` is lambda. A model without captions stays as it is.

    Raises ValueError for a scale outside [0, 1].
    """
    if not 0 <= scale <= 1:
        raise ValueError("guidance=cfg_pp interpolates: guidance.scale must lie between 0 (without the caption) and 1, "
                         f"not {scale}")
    if cond is None:
        return functools.partial(denoiser, cond=None)
    predict = branches(denoiser, cond, null)

    def denoise(x_t: Float[Tensor, "b *d"], t: Float[Tensor, ""]) -> Estimate:
        y_cond, y_null, f = predict(x_t, t)
        guided = denoiser.estimate(y_null + scale * (y_cond - y_null), x_t, t)
        return denoiser.estimate(y_null, x_t, t)._replace(x0=guided.x0, f=f)

    return denoise

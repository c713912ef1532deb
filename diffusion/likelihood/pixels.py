"""What is said about the 256 levels of a pixel. Level k is x = k / 127.5 - 1, the middle of a bin of width 1 / 127.5.

    dequantised   -log P(x) <= -E log p(x + (u - 1/2) / 127.5) + d log 127.5    a density's bins (Theis et al. 2016)
    levels        P(x) = N(x_t / alpha; x, e^-l) / sum over levels              the noise's own (Kingma et al. 2021)
    laplace       P(x) = int over x's bin of Laplace(mean, b)                   around a decoded picture

Each gives nats per sample; `bits_per_dim` is what the literature quotes.
"""

import math

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

WIDTH = 1 / 127.5  # of a level's bin


def bits_per_dim(nats: Float[Tensor, " b"], dimensions: int) -> Float[Tensor, " b"]:
    return nats / (dimensions * math.log(2))


def dequantised(x: Float[Tensor, "b *d"], u: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """Spread evenly over each bin, u uniform on [0, 1)."""
    return x + (u - 0.5) * WIDTH


def levels(x: Float[Tensor, "b *d"], eps: Float[Tensor, "b *d"], log_snr: float) -> Float[Tensor, " b"]:
    """-log P(x | x_t) at x_t / alpha = x + s eps, s = e^(-l / 2) (Kingma et al. 2021, Section 3.3)."""
    k, nats = _level(x), torch.full_like(x, -torch.inf)
    for other in range(256):
        away = (k - other) * (WIDTH / math.exp(-log_snr / 2))  # in units of s
        nats = torch.logaddexp(nats, -away * (away / 2 + eps))
    return reduce(nats, "b ... -> b", "sum")


def laplace(x: Float[Tensor, "b *d"], mean: Float[Tensor, "b *d"], b: float) -> Float[Tensor, " b"]:
    """-log P(x) of a Laplace density of scale b, whose tails belong to the outermost levels."""
    k, h = _level(x), WIDTH / 2
    away = x - mean
    far = away.abs()
    outside = (far - h) / b + math.log(2) - math.log(-math.expm1(-2 * h / b))
    # exp(-h / b) cosh(away / b), both exponents negative where it is used
    inside = -torch.log1p(-(torch.exp((far.clamp(max=h) - h) / b) + torch.exp((-far - h) / b)) / 2)
    nats = torch.where(far < h, inside, outside)
    nats = torch.where(k == 0, -_log_cdf((away + h) / b), nats)
    nats = torch.where(k == 255, -_log_cdf((h - away) / b), nats)
    return reduce(nats, "b ... -> b", "sum")


def _level(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    return ((x + 1) / WIDTH).round()


def _log_cdf(z: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """Of the Laplace density of scale 1."""
    return torch.where(z < 0, z.clamp(max=0) - math.log(2), torch.log1p(-torch.exp(-z.clamp(min=0)) / 2))

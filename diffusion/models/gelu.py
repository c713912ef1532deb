"""GELU (Hendrycks & Gimpel 2016), with a cheaper error function where it is compiled for a CPU in bf16.

    gelu(x) = x Phi(x)        gelu'(x) = Phi(x) + x phi(x)

There erf takes an exponential and a division, more than all else in a feed forward's kernels. Interpolated, Phi and phi
are polynomials: products and sums alone, right to 2e-5, a hundredth of what rounding to bf16 does.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.polynomial.chebyshev import cheb2poly, chebinterpolate
from torch import Tensor

DEGREE, END = 11, 5.0  # in t; of |x|


def interpolated(f: Callable[[float], float]) -> tuple[float, ...]:
    """Coefficients of an even function up to END, as a polynomial in t = 2 (x / END)^2 - 1."""
    at = np.vectorize(lambda t: f(END * math.sqrt((t + 1) / 2)))
    return tuple(map(float, cheb2poly(chebinterpolate(at, DEGREE))))


CUMULATIVE = interpolated(lambda x: math.erf(x / math.sqrt(2)) / 2 / x)  # (Phi(x) - 1/2) / x
DENSITY = interpolated(lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi))  # phi(x)


def polynomial(coefficients: tuple[float, ...], t: Tensor) -> Tensor:
    """By Horner's rule."""
    y = torch.full_like(t, coefficients[-1])
    for a in coefficients[-2::-1]:
        y = y * t + a
    return y


def cumulative(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x within its ends, t, and Phi(x)."""
    x = x.clamp(-END, END)
    t = x * x * (2 / END**2) - 1
    return x, t, 0.5 + x * polynomial(CUMULATIVE, t)


class Interpolated(torch.autograd.Function):
    """gelu and its gradient by interpolation."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x.float() * cumulative(x.float())[2]).to(x.dtype)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        x, t, phi = cumulative(ctx.saved_tensors[0].float())
        return (dy.float() * (phi + x * polynomial(DENSITY, t))).to(dy.dtype)


def gelu(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    if x.device.type == "cpu" and x.dtype is torch.bfloat16 and torch.compiler.is_compiling():
        return Interpolated.apply(x)
    return F.gelu(x)

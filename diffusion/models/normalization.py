"""Group normalisation (Wu & He 2018) that is fast where it is compiled.

    y = (x - mu) / sqrt(var + eps) * weight + bias        mu, var over the channels of a group and all positions
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.group_norm_operation import fits_kernel, in_one_kernel


def at(m: Float[Tensor, "b c"]) -> Float[Tensor, "b c 1 1"]:
    """At all positions."""
    return rearrange(m, "b c -> b c 1 1")


def over_group(m: Float[Tensor, "b c"], groups: int) -> Float[Tensor, "b c"]:
    """The mean of a group's channels, stored for each of them: a loop over channels that divided its index to find the
    group would not be vectorised."""
    m = rearrange(m, "b (g c) -> b g 1 c", g=groups)
    return m.expand(-1, -1, m.shape[-1], -1).mean(-1).flatten(1)


class ByChannel(torch.autograd.Function):
    """F.group_norm with a written-out gradient, all of whose large loops run over channels: with n positions and

        a = mean over a group's channels of weight sum(dy x) / n        b = the same of weight sum(dy) / n

        dx = dy weight rstd + x c - c mu - b rstd                       c = (b mu - a) rstd^3
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x_ = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(x_, (2, 3), correction=0)
        mu = over_group(mean, groups)
        rstd = torch.rsqrt(over_group(var + (mean - mu).square(), groups) + eps)
        ctx.save_for_backward(x, weight, mu, rstd)
        ctx.groups = groups
        scale = rstd * weight
        return (x_ * at(scale) + at(bias - mu * scale)).to(x.dtype)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mu, rstd = ctx.saved_tensors
        x_, dy = (t.to(mu.dtype) for t in (x, dy))
        dyx, dy1, n = (dy * x_).sum((2, 3)), dy.sum((2, 3)), x[0, 0].numel()
        a, b = over_group(dyx * weight, ctx.groups) / n, over_group(dy1 * weight, ctx.groups) / n
        c = (b * mu - a) * rstd**3
        dx = dy * at(weight * rstd) + x_ * at(c) - at(c * mu + b * rstd)
        dweight, dbias = ((dyx - dy1 * mu) * rstd).sum(0), dy1.sum(0)
        return dx.to(x.dtype), dweight.to(weight.dtype), dbias.to(weight.dtype), None, None


class GroupNorm(nn.GroupNorm):
    """torch's, of x + shift, and then SiLU if it is asked for; compiled, by channel, or on a CUDA device all in one
    kernel."""

    def forward(
        self, x: Float[Tensor, "b c h w"], shift: Float[Tensor, "b c"] | None = None, *, silu: bool = False
    ) -> Float[Tensor, "b c h w"]:
        compiled = torch.compiler.is_compiling()
        if compiled and fits_kernel(x, self.num_groups):
            return in_one_kernel(x, shift, self.weight, self.bias, self.num_groups, self.eps, silu)[0]
        if shift is not None:
            x = x + at(shift.to(x.dtype))
        if compiled:
            y = ByChannel.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        else:
            y = F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return F.silu(y) if silu else y

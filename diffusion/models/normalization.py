"""Group normalisation (Wu & He 2018) that is fast where it is compiled for a CUDA device.

    y = (x - mu) / sqrt(var + eps) * weight + bias        mu, var over the channels of a group and all positions
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def group_norm_by_channel(
    x: Float[Tensor, "b c h w"], groups: int, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float
) -> Float[Tensor, "b c h w"]:
    """F.group_norm: each channel's moments first, of them the groups'. In channels_last a group's few channels lie
    scattered over memory, but all channels of a position beside each other."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = (rearrange(m, "b (g c) -> b g c", g=groups) for m in torch.var_mean(x, (2, 3), correction=0))
    mu = mean.mean(-1, keepdim=True)
    rstd = torch.rsqrt((var + (mean - mu).square()).mean(-1, keepdim=True) + eps)
    scale = rearrange(rstd.expand_as(mean), "b g c -> b (g c)") * weight
    shift = bias - rearrange(mu.expand_as(mean), "b g c -> b (g c)") * scale
    return x * rearrange(scale, "b c -> b c 1 1") + rearrange(shift, "b c -> b c 1 1")


class GroupNorm(nn.GroupNorm):
    """torch's, by channel where it is compiled for a CUDA device."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if x.is_cuda and torch.compiler.is_compiling() and self.weight.dtype is torch.float32:
            return group_norm_by_channel(x, self.num_groups, self.weight, self.bias, self.eps)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

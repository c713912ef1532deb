"""What the U-Net and the autoencoder are built of (Ho et al. 2020, appendix B)."""

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.convolution import Convolution
from diffusion.models.normalization import GroupNorm


class ResidualBlock(nn.Module):
    """shortcut(x) + conv2(dropout(silu(norm2(conv1(silu(norm1 x)) + proj(silu(emb))))))

    conv2 starts at zero, so that the block starts as its shortcut. Without emb_dim there is no proj.
    """

    def __init__(self, channels: int, out: int, *, norm_groups: int, emb_dim: int | None = None,
                 dropout: float = 0.0, eps: float = 1e-6):
        super().__init__()
        self.norm1 = GroupNorm(norm_groups, channels, eps)
        self.conv1 = Convolution(channels, out)
        self.time_emb_proj = None if emb_dim is None else nn.Linear(emb_dim, out)
        self.norm2 = GroupNorm(norm_groups, out, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Convolution(out, out)
        self.conv_shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(
        self, x: Float[Tensor, "b c h w"], emb: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        y = self.norm1(x, silu=True)
        if self.time_emb_proj is None:
            y = self.norm2(self.conv1(y), silu=True)
        else:  # conv1's bias is added with what tells the time: one pass over y, and one over its gradient
            shift = self.conv1.bias + self.time_emb_proj(F.silu(emb))
            y = self.norm2(self.conv1(y, biased=False), shift, silu=True)
        return self.conv_shortcut(x) + self.conv2(self.dropout(y))


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, padded on all sides, or only right and below if `asymmetric`."""

    def __init__(self, channels: int, *, asymmetric: bool = False):
        super().__init__()
        self.padding = (0, 1, 0, 1) if asymmetric else None
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        return self.conv(x if self.padding is None else F.pad(x, self.padding))


class Upsample(nn.Module):
    """Every pixel four times, then a 3x3 convolution.

    By `repeat`: below F.interpolate, compiled bf16 gradients are silently zero on a CPU (torch 2.13).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Convolution(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return self.conv(repeat(x, "b c h w -> b c (h 2) (w 2)").contiguous(memory_format=layout(x)))


def layout(x: Tensor) -> torch.memory_format:
    """channels_last or contiguous_format, as x lies in memory."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


class DenseGradient(torch.autograd.Function):
    """The identity, whose gradient lies densely. That of what was concatenated is a slice of a larger tensor, which
    each convolution that reads it would copy, at a quarter of the memory's speed; here the compiled kernel that
    computes it writes it densely."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.layout = layout(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dx: Tensor) -> Tensor:
        return dx.contiguous(memory_format=ctx.layout)


def concatenated(x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c+d h w"]:
    """What comes from below, and what was kept on the way down."""
    if x.is_cuda and torch.compiler.is_compiling():
        x, skip = DenseGradient.apply(x), DenseGradient.apply(skip)
    return torch.cat([x, skip], dim=1)


class MidBlock(nn.Module):
    """Residual block, attention if any, residual block: what happens at the lowest resolution."""

    def __init__(self, first: ResidualBlock, attention: nn.Module | None, second: ResidualBlock):
        super().__init__()
        self.resnets = nn.ModuleList([first, second])
        self.attentions = nn.ModuleList([] if attention is None else [attention])

    def forward(
        self, x: Float[Tensor, "b c h w"], emb: Float[Tensor, "b e"] | None = None, *context: Tensor | None
    ) -> Float[Tensor, "b c h w"]:
        x = self.resnets[0](x, emb)
        for attention in self.attentions:
            x = attention(x, *context)
        return self.resnets[1](x, emb)

"""The autoencoder: pixels to a grid of Gaussians and back (Rombach et al. 2022, section 3.1).

    raw ~ N(mean(x), exp(log_var(x))),   z = (raw - shift) / scale,   x' = decoder(z scale + shift)

shift and scale are measured per channel on the training split, so that z has mean 0 and variance 1.
Block for block it is diffusers' AutoencoderKL; whitening is ours.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.attention import SpatialSelfAttention
from diffusion.models.blocks import Downsample, MidBlock, ResidualBlock, Upsample
from diffusion.models.gaussian import Gaussian
from diffusion.models.normalization import GroupNorm

Pixels = Float[Tensor, "b c h w"]
Latents = Float[Tensor, "b d i j"]

# Of the posterior, at the start: from 0 its noise hides the picture from the decoder for hundreds of updates.
START_LOG_VAR = -6.0


class Level(nn.Module):
    """Residual blocks, then a change of size (or none)."""

    def __init__(self, before: int, width: int, *, blocks: int, norm_groups: int):
        super().__init__()
        inputs = [before] + [width] * (blocks - 1)
        self.resnets = nn.ModuleList(ResidualBlock(b, width, norm_groups=norm_groups) for b in inputs)
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Pixels) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


def middle(width: int, norm_groups: int, attention: bool) -> MidBlock:
    return MidBlock(
        ResidualBlock(width, width, norm_groups=norm_groups),
        SpatialSelfAttention(width, norm_groups=norm_groups) if attention else None,
        ResidualBlock(width, width, norm_groups=norm_groups),
    )


class Encoder(nn.Module):
    """Pixels to `out` channels at 1/2^(levels - 1) of the size."""

    def __init__(
        self, channels: int, out: int, widths: Sequence[int], blocks: int, norm_groups: int, attention: bool
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for i, width in enumerate(widths):
            level = Level(before, width, blocks=blocks, norm_groups=norm_groups)
            if i < len(widths) - 1:
                level.downsample = Downsample(width, asymmetric=True)
            self.down_blocks.append(level)
            before = width
        self.mid_block = middle(before, norm_groups, attention)
        self.norm_out = GroupNorm(norm_groups, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, out, 3, padding=1)

    def forward(self, x: Pixels) -> Latents:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        return self.conv_out(self.norm_out(x, silu=True))


class Decoder(nn.Module):
    """The mirror image, with one residual block more on each level."""

    def __init__(
        self, channels: int, out: int, widths: Sequence[int], blocks: int, norm_groups: int, attention: bool
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.mid_block = middle(widths[-1], norm_groups, attention)
        self.up_blocks = nn.ModuleList()
        before = widths[-1]
        for i in reversed(range(len(widths))):
            level = Level(before, widths[i], blocks=blocks + 1, norm_groups=norm_groups)
            if i > 0:
                level.upsample = Upsample(widths[i])
            self.up_blocks.append(level)
            before = widths[i]
        self.norm_out = GroupNorm(norm_groups, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, out, 3, padding=1)

    def forward(self, z: Latents) -> Pixels:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(self.norm_out(x, silu=True))


class KLAutoencoder(nn.Module):
    """`raw` latents are the encoder's own; z is whitened and what diffusion sees. Pixels are in [-1, 1].

    latent_channels   of z, at 1/2^(levels - 1) of the pictures' size
    widths            channels of each level, from the pictures' size down; norm_groups must divide them
    blocks_per_level  residual blocks of the encoder's levels; the decoder's have one more
    mid_attention     whether the positions of the smallest feature map attend to each other
    """

    sigma_data = 1.0  # of z, by whitening

    def __init__(
        self,
        image_channels: int = 3,
        latent_channels: int = 4,
        *,
        widths: Sequence[int] = (64, 128),
        blocks_per_level: int = 1,
        norm_groups: int = 32,
        mid_attention: bool = True,
    ):
        super().__init__()
        if not widths:
            raise ValueError("autoencoder.widths is empty; it needs the channels of one level or more")
        if blocks_per_level < 1:
            raise ValueError(f"autoencoder.blocks_per_level is {blocks_per_level}; it must be 1 or more")
        for i, width in enumerate(widths):
            if width % norm_groups:
                raise ValueError(
                    f"autoencoder.widths[{i}] = {width} is no multiple of"
                    f" autoencoder.norm_groups = {norm_groups}"
                )
        self.image_channels, self.latent_channels = image_channels, latent_channels
        self.factor = 2 ** (len(widths) - 1)
        sizes = widths, blocks_per_level, norm_groups, mid_attention
        self.encoder = Encoder(image_channels, 2 * latent_channels, *sizes)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        nn.init.constant_(self.quant_conv.bias[latent_channels:], START_LOG_VAR)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = Decoder(latent_channels, image_channels, *sizes)
        self.register_buffer("shift", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(latent_channels, 1, 1))

    @property
    def last_layer(self) -> nn.Parameter:
        """The decoder's last weights, where the adversarial term is balanced."""
        return self.decoder.conv_out.weight

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a square picture."""
        if image_size % self.factor:
            raise ValueError(
                f"pictures of {image_size} pixels (data.image_size) do not fit an autoencoder of"
                f" {self.factor.bit_length()} levels (autoencoder.widths): the size must be a multiple of {self.factor}"
            )
        return self.latent_channels, image_size // self.factor, image_size // self.factor

    def posterior(self, x: Pixels) -> Gaussian:
        """q(raw | x), in float32 or better; log_var is clamped to [-30, 20]."""
        if x.shape[1] != self.image_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"the autoencoder was given pictures of shape {tuple(x.shape[1:])}; it expects"
                f" {self.image_channels} channels (autoencoder.image_channels) and multiples of {self.factor}"
                " as sizes (every level of autoencoder.widths but one halves them)"
            )
        moments = self.quant_conv(self.encoder(x))
        moments = moments.to(torch.promote_types(moments.dtype, torch.float32))
        mean, log_var = rearrange(moments, "b (two c) h w -> two b c h w", two=2)
        return Gaussian(mean, log_var.clamp(-30, 20))

    def reconstruct(self, raw: Latents) -> Pixels:
        return self.decoder(self.post_quant_conv(raw))

    def whiten(self, raw: Latents) -> Latents:
        return (raw - self.shift) / self.scale

    def encode(self, x: Pixels, noise: Latents | None = None) -> Latents:
        """z, of the posterior's mean, or of a sample of it where noise is given."""
        posterior = self.posterior(x)
        return self.whiten(posterior.mean if noise is None else posterior.sample(noise))

    def decode(self, z: Latents) -> Pixels:
        """Pixels, not clamped."""
        return self.reconstruct(z * self.scale + self.shift)

    @torch.no_grad()
    def set_statistics(self, shift: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> None:
        """Mean and standard deviation of the raw latents: one number per channel, in any shape."""
        for name, value in (("shift", shift), ("scale", scale)):
            if value.numel() != self.latent_channels or not value.isfinite().all():
                raise ValueError(
                    f"latent {name} must be {self.latent_channels} finite numbers, one per channel,"
                    f" not {value.flatten().tolist()}"
                )
        if not (scale > 0).all():
            raise ValueError(
                f"latent scale must be positive, not {scale.flatten().tolist()}: is a channel constant?"
            )
        self.shift.copy_(shift.view_as(self.shift))
        self.scale.copy_(scale.view_as(self.scale))

"""The U-Net (Ho et al. 2020, appendix B) with cross-attention to text (Rombach et al. 2022, section 3.3).

Level i works at 1/2^i of the size with widths[i] channels. On the way down every feature map is put on
a stack, on the way up it is taken off and concatenated. Block for block it is diffusers' UNet2DConditionModel
with use_linear_projection.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion.conditioning import Conditioning
from diffusion.models.attention import SpatialTransformer
from diffusion.models.blocks import Downsample, MidBlock, ResidualBlock, Upsample, concatenated
from diffusion.models.convolution import Convolution
from diffusion.models.embeddings import TimeEmbedding, sinusoidal
from diffusion.models.inputs import check_inputs
from diffusion.models.normalization import GroupNorm

Feature = Float[Tensor, "b c h w"]
Tokens = Float[Tensor, "b l d"] | None
Mask = Bool[Tensor, "b l"] | None


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if the level has any."""

    def __init__(self, resnets: list[ResidualBlock], attentions: list[SpatialTransformer]):
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def layer(self, i: int, x: Feature, emb: Float[Tensor, "b e"], tokens: Tokens, mask: Mask) -> Tensor:
        x = self.resnets[i](x, emb)
        return self.attentions[i](x, tokens, mask) if self.attentions else x


class UNet(nn.Module):
    """y = network(x_t, label, cond), the same size as x_t.

    channels          of the input: those of x_t and of cond.image together
    widths            channels of each level, from the input's size down; norm_groups must divide them
    blocks_per_level  residual blocks on the way down; one more on the way up
    self_attention    per level: do its positions attend to each other?
    cross_attention   per level: do they attend to cond.tokens, of context_dim channels?
    heads_dim         channels per attention head
    pooled_dim        of cond.pooled, which then is added to the time embedding; None ignores it
    transformer_depth transformer blocks behind each residual block of a level with attention
    dropout           of the residual blocks
    gradient_checkpointing  computes each layer anew in the backward pass: a third more time, far less memory
    out_channels      None: as many as `channels`

    The middle attends to itself if any level does, and to the tokens if any level does (Stable Diffusion's
    does, below a last level without attention). conv_out starts at zero, and so does what each block adds.
    """

    recordable = True

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int],
        blocks_per_level: int,
        self_attention: Sequence[bool],
        cross_attention: Sequence[bool],
        heads_dim: int,
        context_dim: int | None,
        pooled_dim: int | None = None,
        dropout: float = 0.0,
        norm_groups: int = 32,
        transformer_depth: int = 1,
        gradient_checkpointing: bool = False,
        out_channels: int | None = None,
    ):
        super().__init__()
        check(widths, blocks_per_level, self_attention, cross_attention, heads_dim, context_dim, norm_groups)
        self.channels, self.out_channels = channels, out_channels or channels
        self.widths, self.factor = tuple(widths), 2 ** (len(widths) - 1)
        self.context_dim, self.pooled_dim = context_dim, pooled_dim
        self.gradient_checkpointing = gradient_checkpointing
        emb_dim = 4 * widths[0]

        def resnet(before: int, width: int) -> ResidualBlock:
            return ResidualBlock(
                before, width, norm_groups=norm_groups, emb_dim=emb_dim, dropout=dropout, eps=1e-5
            )

        def transformer(width: int, to_self: bool, to_tokens: bool) -> SpatialTransformer | None:
            if not to_self and not to_tokens:
                return None
            return SpatialTransformer(
                width, heads=width // heads_dim, norm_groups=norm_groups, depth=transformer_depth,
                self_attention=to_self, context_dim=context_dim if to_tokens else None,
                fused=gradient_checkpointing,
            )

        def level(i: int, before: Sequence[int]) -> Level:
            attentions = [transformer(widths[i], self_attention[i], cross_attention[i]) for _ in before]
            return Level([resnet(b, widths[i]) for b in before], [a for a in attentions if a is not None])

        self.time_embedding = TimeEmbedding(widths[0], emb_dim)
        self.pooled_embedding = None if pooled_dim is None else TimeEmbedding(pooled_dim, emb_dim)
        self.conv_in = Convolution(channels, widths[0])

        last = len(widths) - 1
        stack, before = [widths[0]], widths[0]  # channels of the feature maps on the stack, and of x
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            block = level(i, [before] + [width] * (blocks_per_level - 1))
            stack += [width] * blocks_per_level
            if i < last:
                block.downsample = Downsample(width)
                stack.append(width)
            self.down_blocks.append(block)
            before = width

        attention = transformer(widths[-1], any(self_attention), any(cross_attention))
        self.mid_block = MidBlock(resnet(before, before), attention, resnet(before, before))

        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            inputs = [before] + [widths[i]] * blocks_per_level
            block = level(i, [b + stack.pop() for b in inputs])
            if i > 0:
                block.upsample = Upsample(widths[i])
            self.up_blocks.append(block)
            before = widths[i]

        self.norm_out = GroupNorm(norm_groups, before, eps=1e-5)
        self.conv_out = Convolution(before, self.out_channels)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(
        self, x: Float[Tensor, "b _ h w"], label: Float[Tensor, " b"], cond: Conditioning | None = None
    ) -> Float[Tensor, "b _ h w"]:
        cond = Conditioning() if cond is None else cond
        if cond.image is not None:
            x = torch.cat([x, cond.image], dim=1)
        check_inputs(self, x, cond, multiple=self.factor, because=f"{len(self.widths)} levels in backbone.widths")
        run: Callable = partial(checkpoint, use_reentrant=False) if self.gradient_checkpointing else call

        emb = self.time_embedding(sinusoidal(label, self.widths[0]).to(x.dtype))
        if self.pooled_embedding is not None:
            emb = emb + self.pooled_embedding(cond.pooled)
        told = emb, cond.tokens, cond.mask

        x = self.conv_in(x)
        stack = [x]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = run(level.layer, i, x, *told)
                stack.append(x)
            if level.downsample is not None:
                x = level.downsample(x)
                stack.append(x)
        x = run(self.mid_block, x, *told)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = run(level.layer, i, concatenated(x, stack.pop()), *told)
            if level.upsample is not None:
                x = level.upsample(x)
        return self.conv_out(self.norm_out(x, silu=True))


def call(function: Callable, *args):
    return function(*args)


def check(
    widths: Sequence[int],
    blocks_per_level: int,
    self_attention: Sequence[bool],
    cross_attention: Sequence[bool],
    heads_dim: int,
    context_dim: int | None,
    norm_groups: int,
) -> None:
    """Refuse sizes that do not fit together, in the words of the config."""
    if not widths:
        raise ValueError("backbone.widths is empty; it needs the channels of one level or more")
    if blocks_per_level < 1:
        raise ValueError(f"backbone.blocks_per_level is {blocks_per_level}; it must be 1 or more")
    for name, flags in (("self_attention", self_attention), ("cross_attention", cross_attention)):
        if len(flags) != len(widths):
            raise ValueError(
                f"backbone.{name} has {len(flags)} entries and backbone.widths has {len(widths)};"
                " both need one per level"
            )
    if any(cross_attention) and context_dim is None:
        raise ValueError(
            "backbone.cross_attention is on, but backbone.context_dim is null: there are no tokens to attend to"
            " (text_encoder=none); switch it off, one false per level, or take a text encoder"
        )
    if context_dim is not None and not any(cross_attention):
        raise ValueError(
            f"backbone.context_dim is {context_dim}, but no entry of backbone.cross_attention is true;"
            " set context_dim to null, or attend somewhere"
        )
    for i, width in enumerate(widths):
        if width % norm_groups:
            raise ValueError(
                f"backbone.widths[{i}] = {width} is no multiple of backbone.norm_groups = {norm_groups}"
            )
    attended = [i for i in range(len(widths)) if self_attention[i] or cross_attention[i]]
    for i in {*attended, len(widths) - 1} if attended else ():  # the last width is the middle's
        if widths[i] % heads_dim:
            raise ValueError(
                f"backbone.widths[{i}] = {widths[i]} is no multiple of backbone.heads_dim = {heads_dim},"
                " and it is a level with attention (or the middle)"
            )

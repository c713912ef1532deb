"""DiT, a transformer over patches of the latent (Peebles & Xie 2023, section 3.2), with cross-attention to text where
PixArt-alpha has it (Chen et al. 2024, section 2.3).

    block:  x += gate_1 * self((1 + scale_1) * norm x + shift_1)
            x += cross(x, tokens)
            x += gate_2 * mlp((1 + scale_2) * norm x + shift_2)

adaLN-Zero: each block computes its six vectors from the embedding of the time, and they start at zero, as does what
cross adds. So every block starts as the identity, and the network as zero.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion.conditioning import Conditioning
from diffusion.models.attention import Attention
from diffusion.models.embeddings import TimeEmbedding, sinusoidal, sinusoidal_2d
from diffusion.models.inputs import check_inputs

WAVES = 256  # channels of the time before its MLP (appendix A)
Vectors = Float[Tensor, "b 1 d"]


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n e"]:
    """One token per patch, row by row: its c patch^2 numbers."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(x: Float[Tensor, "b n e"], patch: int, height: int) -> Float[Tensor, "b c h w"]:
    """The inverse; `height` counts positions."""
    return rearrange(x, "b (h w) (c p q) -> b c (h p) (w q)", h=height // patch, p=patch, q=patch)


def adaptive_norm(x: Float[Tensor, "b n d"], shift: Vectors, scale: Vectors) -> Float[Tensor, "b n d"]:
    """(1 + scale) norm x + shift: a layer norm whose gain and bias are told."""
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift


class Modulation(nn.Module):
    """`n` vectors that shift, scale or gate every token of a picture alike: linear(silu(emb))."""

    def __init__(self, width: int, n: int):
        super().__init__()
        self.n = n
        self.linear = nn.Linear(width, n * width)

    def forward(self, emb: Float[Tensor, "b d"]) -> Float[Tensor, "n b 1 d"]:
        return rearrange(self.linear(F.silu(emb)), "b (n d) -> n b 1 d", n=self.n)


class Block(nn.Module):
    """Attention to itself, to tokens if `context_dim`, then an MLP; residual. The cross-attention is not modulated."""

    def __init__(self, width: int, *, heads: int, context_dim: int | None, mlp_ratio: float, dropout: float,
                 qk_norm: bool, fused: bool):
        super().__init__()
        self.modulation = Modulation(width, 6)
        self.attn1 = Attention(width, heads=heads, bias=True, qk_norm=qk_norm, fused=fused)
        self.attn2 = None
        if context_dim is not None:
            self.attn2 = Attention(
                width, heads=heads, context_dim=context_dim, bias=True, qk_norm=qk_norm, fused=fused
            )
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        emb: Float[Tensor, "b d"],
        tokens: Float[Tensor, "b l e"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(emb)
        x = x + gate_1 * self.attn1(adaptive_norm(x, shift_1, scale_1))
        if self.attn2 is not None:
            x = x + self.attn2(x, tokens, mask)
        return x + gate_2 * self.mlp(adaptive_norm(x, shift_2, scale_2))


class DiT(nn.Module):
    """y = network(x_t, label, cond), the same size as x_t; any size of which `patch` is a divisor, square or not.

    channels      of the input: those of x_t and of cond.image together
    patch         side of a patch; each patch is a token, so half the side makes four times as many
    width         channels of a token; with depth and heads, the paper's S is (384, 12, 6), B (768, 12, 12),
                  L (1024, 24, 16) and XL (1152, 28, 16)
    depth         blocks
    heads         of every attention
    context_dim   of cond.tokens, which every block then attends to; None ignores them
    pooled_dim    of cond.pooled, which then is added to the time embedding; None ignores it
    mlp_ratio     hidden channels of the MLPs, in widths
    qk_norm       normalises queries and keys: large attention logits made long runs diverge (Dehghani et al. 2023)
    dropout       of the MLPs' hidden channels
    gradient_checkpointing  computes each block anew in the backward pass: a third more time, far less memory
    out_channels  None: as many as `channels`
    """

    recordable = True

    def __init__(
        self,
        channels: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        context_dim: int | None,
        pooled_dim: int | None = None,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        out_channels: int | None = None,
    ):
        super().__init__()
        check(patch=patch, width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        self.channels, self.out_channels = channels, out_channels or channels
        self.patch, self.context_dim, self.pooled_dim = patch, context_dim, pooled_dim
        self.gradient_checkpointing = gradient_checkpointing

        self.time_embedding = TimeEmbedding(WAVES, width)
        self.pooled_embedding = None if pooled_dim is None else TimeEmbedding(pooled_dim, width)
        self.proj_in = nn.Linear(channels * patch**2, width)
        self.blocks = nn.ModuleList(
            Block(
                width, heads=heads, context_dim=context_dim, mlp_ratio=mlp_ratio, dropout=dropout, qk_norm=qk_norm,
                fused=gradient_checkpointing,
            )
            for _ in range(depth)
        )
        self.modulation_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, self.out_channels * patch**2)
        self.initialise()

    def initialise(self) -> None:
        """A vision transformer's weights, but zero where a branch ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        ends = [self.proj_out, *(m.linear for m in self.modules() if isinstance(m, Modulation)),
                *(block.attn2.to_out for block in self.blocks if block.attn2 is not None)]
        for linear in ends:
            nn.init.zeros_(linear.weight)

    def forward(
        self, x: Float[Tensor, "b _ h w"], label: Float[Tensor, " b"], cond: Conditioning | None = None
    ) -> Float[Tensor, "b _ h w"]:
        cond = Conditioning() if cond is None else cond
        if cond.image is not None:
            x = torch.cat([x, cond.image], dim=1)
        check_inputs(self, x, cond, multiple=self.patch, because="backbone.patch")
        height, width = x.shape[2:]

        emb = self.time_embedding(sinusoidal(label, WAVES).to(x.dtype))
        if self.pooled_embedding is not None:
            emb = emb + self.pooled_embedding(cond.pooled)
        told = emb, cond.tokens, cond.mask

        position = sinusoidal_2d(height // self.patch, width // self.patch, self.proj_in.out_features, x.device)
        # a float32 position makes the sums of all blocks float32, in autocast too
        x = self.proj_in(patchify(x, self.patch)) + position.to(x.dtype)
        for block in self.blocks:
            x = checkpoint(block, x, *told, use_reentrant=False) if self.gradient_checkpointing else block(x, *told)
        x = self.proj_out(adaptive_norm(x, *self.modulation_out(emb)))
        return unpatchify(x, self.patch, height)


def check(**sizes: float) -> None:
    """Refuse sizes that do not fit together, in the words of the config."""
    for name, value in sizes.items():
        if value <= 0:
            raise ValueError(f"backbone.{name} is {value}; it must be positive")
    width, heads = sizes["width"], sizes["heads"]
    if width % heads:
        raise ValueError(f"backbone.width = {width} is no multiple of backbone.heads = {heads}")
    if width % 4:
        raise ValueError(f"backbone.width = {width} is no multiple of 4, for sines and cosines of row and column")

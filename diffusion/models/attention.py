"""Attention over the positions of a feature map, and from them to text tokens.

    attend(q, k, v) = softmax(q k^T / sqrt(d)) v                                  (Vaswani et al. 2017, Eq. 1)

A transformer block adds self(norm x), then cross(norm x, tokens), then ff(norm x) to x (Rombach et al. 2022,
section 3.3).
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion.models.gelu import gelu
from diffusion.models.linear import Linear, linear
from diffusion.models.normalization import GroupNorm

FEW = 128  # keys: the two ways are equally fast at 256
SHORT = 64  # queries and keys: cuDNN's kernel takes half as long again for so few, and as long for 77 keys (H200)
Kept = dict[int, tuple[Tensor, Tensor, Tensor]]


def attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m d"],
    mask: Bool[Tensor, "b m"] | None = None,
    *,
    fused: bool = False,
) -> Float[Tensor, "b h n d"]:
    """mask is True where a key may be attended to; each row of it needs at least one True.

    Written out on a CPU that will run it backwards, because the fused kernel's gradient is twice as slow there, or
    that reads few keys in bf16, for which that kernel takes twice as long too. Not where `fused`: for gradient
    checkpointing, below which the compiled written-out form has NaN gradients in bf16 (torch 2.13 on a CPU). Of
    short sequences on a CUDA device, by the memory-efficient kernel.
    """
    if mask is not None:
        mask = rearrange(mask, "b m -> b 1 1 m")
    few = q.dtype == torch.bfloat16 and k.shape[-2] <= FEW
    if q.is_cuda and mask is None and max(q.shape[-2], k.shape[-2]) <= SHORT:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return F.scaled_dot_product_attention(q, k, v)
    if fused or q.device.type != "cpu" or not (torch.is_grad_enabled() or few):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if torch.compiler.is_compiling():
        return WrittenOut.apply(q, k, v, mask)
    return weights(q, k, mask) @ v


def weights(q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], mask: Bool[Tensor, "b 1 1 m"] | None
            ) -> Float[Tensor, "b h n m"]:
    """softmax(q k^T / sqrt(d))"""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)


class WrittenOut(torch.autograd.Function):
    """P v of the weights P, with a written-out gradient: with S = q k^T / sqrt(d),

        dv = P^T dy        dS = P (dy v^T - D)        D = sum over channels of dy y

    where a softmax's own gradient would sum over all keys for D (Dao et al. 2022, appendix B.2).
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        p = weights(q, k, mask)
        y = p @ v
        ctx.save_for_backward(q, k, v, p, y)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, p, y = ctx.saved_tensors
        scale, wide = q.shape[-1] ** -0.5, torch.promote_types(q.dtype, torch.float32)
        d = (dy.to(wide) * y).sum(-1, keepdim=True)
        ds = (p * ((dy @ v.transpose(-1, -2)).to(wide) - d)).to(q.dtype)
        return ds @ k * scale, ds.transpose(-1, -2) @ (q * scale), p.transpose(-1, -2) @ dy, None


class Attention(nn.Module):
    """Multi-head attention from x to a context of `context_dim` channels, or to x itself.

    With `qk_norm`, the queries and keys of each head have a root mean square of 1, times a learnt gain (Dehghani et al.
    2023, section 2; with RMSNorm: Esser et al. 2024), so that the size of their projections cannot drive the logits.
    """

    def __init__(self, dim: int, *, heads: int, context_dim: int | None = None, bias: bool = False,
                 qk_norm: bool = False, fused: bool = False):
        super().__init__()
        self.heads, self.fused, self.to_tokens = heads, fused, context_dim is not None
        self.kept: Kept | None = None  # see keys_kept
        self.told: tuple[Tensor, Tensor] | None = None  # see keys_told
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=bias)
        self.norm_q, self.norm_k = (nn.RMSNorm(dim // heads, eps=1e-6) if qk_norm else None for _ in "qk")
        self.to_out = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b l e"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        if context is None:
            q, k, v = self._projected(x, "qkv")
        else:
            q, = self._projected(x, "q")
            if self.told is not None:
                k, v = self.told
            elif self.kept is None:
                k, v = self.keys_and_values(context)
            else:
                k, v = self.kept_keys(context)
        return self.to_out(rearrange(attend(q, k, v, mask, fused=self.fused), "b h n d -> b n (h d)"))

    def keys_and_values(
        self, context: Float[Tensor, "b l e"]
    ) -> tuple[Float[Tensor, "b h l c"], Float[Tensor, "b h l c"]]:
        return self._projected(context, "kv")

    def kept_keys(self, context: Float[Tensor, "b l e"]) -> tuple[Float[Tensor, "b h l c"], Float[Tensor, "b h l c"]]:
        """Computed unless they were before."""
        if id(context) not in self.kept:  # the context beside them, so that nothing else gets its id
            self.kept[id(context)] = (context, *self.keys_and_values(context))
        return self.kept[id(context)][1:]

    def _projected(self, x: Float[Tensor, "b n d"], to: str) -> tuple[Float[Tensor, "b h n c"], ...]:
        """Queries, keys or values, by their letters, for each head: of one product where it is compiled for a CUDA
        device, so that their gradients are of one product, too."""
        layers = [getattr(self, f"to_{letter}") for letter in to]
        if x.is_cuda and torch.compiler.is_compiling():
            bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
            parts = F.linear(x, torch.cat([layer.weight for layer in layers]), bias).chunk(len(layers), -1)
        else:
            parts = [layer(x) for layer in layers]
        norms = {"q": self.norm_q, "k": self.norm_k, "v": None}
        return tuple(self._of_heads(y, norms[letter]) for y, letter in zip(parts, to, strict=True))

    def _of_heads(self, y: Float[Tensor, "b n d"], norm: nn.Module | None) -> Float[Tensor, "b h n c"]:
        y = rearrange(y, "b n (h c) -> b n h c", h=self.heads)
        if norm is not None:  # not after the next line: NaN gradients where acceleration.cpu_code has no option
            y = norm(y.to(norm.weight.dtype)).to(y.dtype)
        return rearrange(y, "b n h c -> b h n c")


@contextlib.contextmanager
def keys_kept(network: nn.Module) -> Iterator[list[tuple[Attention, Kept]]]:
    """Within, attention to one and the same tensor of tokens computes its keys and values once: for sampling, whose
    steps all read the same prompts with the same weights. Gives what each layer keeps."""
    layers = [module for module in network.modules() if isinstance(module, Attention)]
    before = [layer.kept for layer in layers]
    for layer in layers:
        layer.kept = {}
    try:
        yield [(layer, layer.kept) for layer in layers]
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.kept = kept


@contextlib.contextmanager
def keys_told(network: nn.Module, tokens: Float[Tensor, "b l e"] | None) -> Iterator[None]:
    """Within, all that attends to anything but itself attends to these tokens, by the keys that are kept: for a
    compiled pass, which can read them, but not look them up."""
    layers = [module for module in network.modules()
              if isinstance(module, Attention) and module.to_tokens and module.kept is not None]
    for layer in layers if tokens is not None else ():
        layer.told = layer.kept_keys(tokens)
    try:
        yield
    finally:
        for layer in layers:
            layer.told = None


def refresh_keys(keys: list[tuple[Attention, Kept]]) -> None:
    """Compute the kept keys and values anew, into the same memory, of tokens that were written into theirs."""
    for layer, kept in keys:
        for tokens, k, v in kept.values():
            new_k, new_v = layer.keys_and_values(tokens)
            k.copy_(new_k)
            v.copy_(new_v)


class GEGLU(nn.Module):
    """out(a gelu(b)) with (a, b) = proj(x): a gated feed forward four times as wide as x (Shazeer 2020). Two products
    instead of one, whose gradient would have to be put together from a's and b's."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Linear(dim, 8 * dim)
        self.out = Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        a, b = (linear(x, w, c) for w, c in zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True))
        return self.out(a * gelu(b))


class TransformerBlock(nn.Module):
    """Attention to itself if `self_attention`, to tokens if `context_dim`, then feed forward; residual."""

    def __init__(self, dim: int, *, heads: int, self_attention: bool = True, context_dim: int | None = None,
                 fused: bool = False):
        super().__init__()
        self.norm1 = self.attn1 = self.norm2 = self.attn2 = None
        if self_attention:
            self.norm1, self.attn1 = nn.LayerNorm(dim), Attention(dim, heads=heads, fused=fused)
        if context_dim is not None:
            self.norm2 = nn.LayerNorm(dim)
            self.attn2 = Attention(dim, heads=heads, context_dim=context_dim, fused=fused)
        self.norm3, self.ff = nn.LayerNorm(dim), GEGLU(dim)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        tokens: Float[Tensor, "b l e"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        if self.attn1 is not None:
            x = x + self.attn1(self.norm1(x))
        if self.attn2 is not None:
            x = x + self.attn2(self.norm2(x), tokens, mask)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """x + proj_out(blocks(proj_in(norm x))) over the h w positions; it starts as the identity."""

    def __init__(self, dim: int, *, heads: int, norm_groups: int, depth: int = 1, self_attention: bool = True,
                 context_dim: int | None = None, fused: bool = False):
        super().__init__()
        self.norm = GroupNorm(norm_groups, dim, eps=1e-6)
        self.proj_in = Linear(dim, dim)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                dim, heads=heads, self_attention=self_attention, context_dim=context_dim, fused=fused
            )
            for _ in range(depth)
        )
        self.proj_out = Linear(dim, dim)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        tokens: Float[Tensor, "b l e"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        y = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            y = block(y, tokens, mask)
        return x + rearrange(self.proj_out(y), "b (h w) c -> b c h w", h=x.shape[2])


class SpatialSelfAttention(nn.Module):
    """x + attention(norm x) with one head as wide as x, as in an autoencoder; it starts as the identity."""

    def __init__(self, dim: int, *, norm_groups: int):
        super().__init__()
        self.norm = GroupNorm(norm_groups, dim, eps=1e-6)
        self.attention = Attention(dim, heads=1, bias=True)
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])

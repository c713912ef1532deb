"""The two ways to attend agree, and the mask means what it says."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion.models.attention import (
    FEW,
    Attention,
    SpatialSelfAttention,
    SpatialTransformer,
    attend,
    keys_kept,
    keys_told,
)


def heads(keys=7, dtype=torch.float64):
    torch.manual_seed(0)
    q = torch.randn(2, 3, 5, 8, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(2, 3, keys, 8, dtype=dtype, requires_grad=True) for _ in range(2))
    return q, k, v


def some_mask(keys=7):
    return torch.arange(keys) < torch.tensor([[3], [6]])


@pytest.mark.parametrize("mask", [None, some_mask()])
def test_written_out_is_fused(mask):
    q, k, v = heads()
    with torch.no_grad():
        fused = attend(q, k, v, mask)
    torch.testing.assert_close(attend(q, k, v, mask), fused)


@pytest.mark.parametrize("mask", [None, some_mask()])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.bfloat16, 0.02)])
def test_compiled_it_has_a_written_out_gradient(monkeypatch, mask, dtype, near):
    exact = heads()
    inputs = [t.detach().to(dtype).requires_grad_() for t in exact]
    expected = attend(*exact, mask)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    y = attend(*inputs, mask)
    assert "WrittenOut" in y.grad_fn.name()
    dy = torch.randn_like(expected)
    found = y, *torch.autograd.grad(y, inputs, dy.to(dtype))
    for ours, theirs in zip(found, (expected, *torch.autograd.grad(expected, exact, dy)), strict=True):
        assert (ours - theirs).norm() < near * theirs.norm()


@torch.no_grad()
@pytest.mark.parametrize(("keys", "fused"), [(7, 0), (FEW, 0), (FEW + 1, 1)])
def test_half_precision_rounds_whatever_the_number_of_keys(keys, fused, monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *x, **y: calls.append(x[0].dtype) or kernel(*x, **y))
    halves, mask = [x.bfloat16() for x in heads(keys)], some_mask(keys)
    exact = attend(*(x.double() for x in halves), mask)
    torch.testing.assert_close(attend(*halves, mask).double(), exact, atol=0.03, rtol=0.03)
    assert calls.count(torch.bfloat16) == fused


@pytest.mark.parametrize("gradients", [True, False])
def test_masked_keys_do_not_matter(gradients):
    q, k, v = heads()
    mask = some_mask()
    with torch.set_grad_enabled(gradients):
        y = attend(q, k, v, mask)
        for row, length in enumerate(mask.sum(1)):
            part = slice(row, row + 1)
            torch.testing.assert_close(y[part], attend(q[part], k[part, :, :length], v[part, :, :length]))


def test_masked_keys_get_no_gradient():
    q, k, v = heads()
    mask = some_mask()
    attend(q, k, v, mask).square().sum().backward()
    hidden = ~mask[:, None, :, None].expand_as(k)
    assert not k.grad[hidden].any() and not v.grad[hidden].any()
    assert k.grad[~hidden].all() and v.grad[~hidden].all()


def test_equal_keys_are_averaged():
    q, k, v = heads()
    y = attend(q, k[:, :, :1].expand_as(k), v)
    torch.testing.assert_close(y, v.mean(2, keepdim=True).expand_as(q))


def test_large_scores_stay_finite_in_half_precision():
    q, k, v = (x.detach().requires_grad_() for x in heads(dtype=torch.bfloat16))
    y = attend(100 * q, 100 * k, v)
    y.sum().backward()
    assert y.isfinite().all() and q.grad.isfinite().all() and y.dtype == torch.bfloat16


def test_attention_of_tokens_ignores_their_order():
    torch.manual_seed(0)
    attention = Attention(8, heads=2, context_dim=6).double()
    x, tokens = torch.randn(2, 5, 8).double(), torch.randn(2, 4, 6).double()
    torch.testing.assert_close(attention(x, tokens), attention(x, tokens.flip(1)))


@pytest.mark.parametrize("block", [
    SpatialTransformer(32, heads=2, norm_groups=8),
    SpatialTransformer(32, heads=2, norm_groups=8, depth=2, self_attention=False, context_dim=6),
    SpatialSelfAttention(32, norm_groups=8),
])
def test_attention_blocks_start_as_the_identity(block):
    x = torch.randn(2, 32, 4, 6)
    told = (torch.randn(2, 3, 6),) if isinstance(block, SpatialTransformer) else ()
    assert torch.equal(block(x, *told), x)


def test_keys_of_the_same_tokens_are_computed_once():
    torch.manual_seed(0)
    layer = Attention(16, heads=2, context_dim=12, qk_norm=True).double()
    projections = []
    layer.to_k.register_forward_hook(lambda *_: projections.append(1))
    x, y = torch.randn(2, 2, 5, 16, dtype=torch.float64)
    tokens, others = torch.randn(2, 2, 7, 12, dtype=torch.float64)
    calls = [(x, tokens), (y, tokens), (x, others), (y, tokens), (x, others)]
    plain = [layer(*call) for call in calls]
    assert len(projections) == 5
    with keys_kept(layer):
        kept = [layer(*call) for call in calls]
    assert len(projections) == 7
    assert all(torch.equal(a, b) for a, b in zip(kept, plain))


def test_told_keys_are_those_of_the_tokens_and_end_with_the_pass():
    layer, itself = Attention(16, heads=2, context_dim=12), Attention(16, heads=2)
    network, x, (tokens, others) = nn.ModuleList([layer, itself]), torch.randn(2, 5, 16), torch.randn(2, 2, 7, 12)
    plain, alone = layer(x, tokens), itself(x)
    with keys_kept(network):
        with keys_told(network, tokens):
            assert torch.equal(layer(x, others), plain)  # not even looked at: the keys are told
            assert torch.equal(itself(x), alone)
        assert not torch.equal(layer(x, others), plain)
    with keys_told(network, tokens):  # nothing is kept here
        assert not torch.equal(layer(x, others), plain)


def test_attention_to_itself_keeps_nothing():
    layer = Attention(16, heads=2)
    x, y = torch.randn(2, 2, 5, 16)
    with keys_kept(layer):
        layer(x)
        torch.testing.assert_close(layer(y), layer(y.clone()))
        assert not layer.kept


def test_kept_keys_are_forgotten_after_an_error():
    layer = Attention(16, heads=2, context_dim=12)
    tokens = torch.randn(1, 3, 12)
    with pytest.raises(KeyboardInterrupt), keys_kept(layer):
        layer(torch.randn(1, 5, 16), tokens)
        raise KeyboardInterrupt
    assert layer.kept is None

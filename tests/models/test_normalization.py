"""The moments of channels give those of their groups."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.models.normalization import ByChannel, GroupNorm


def by_channel(x, groups, weight, bias, eps):
    return ByChannel.apply(x, weight, bias, groups, eps)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 5), st.integers(2, 4),
       st.integers(0, 100))
def test_by_channel_is_group_normalisation_with_its_gradients(b, groups, each, h, w, seed):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    c = groups * each
    x, weight, bias, dy = drawn(b, c, h, w), drawn(c), drawn(c), drawn(b, c, h, w).detach()
    found, expected = (function(x, groups, weight, bias, 1e-5) for function in (by_channel, F.group_norm))
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("offset", [0, 1000])
def test_float32_keeps_its_digits_far_from_zero(offset):
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)) + offset
    expected = F.group_norm(x.double(), 4)
    found = by_channel(x, 4, torch.ones(8), torch.zeros(8), 1e-5)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 * max(offset, 1))


def test_on_a_cpu_bfloat16_stays_bfloat16_and_gradients_have_their_parameters_type():
    """As F.group_norm has it there."""
    torch.manual_seed(0)
    x, dy = torch.randn(2, 8, 4, 4).bfloat16().requires_grad_(), torch.randn(2, 8, 4, 4).bfloat16()
    weight, bias = torch.randn(8).requires_grad_(), torch.randn(8).requires_grad_()
    found, expected = (function(x, 4, weight, bias, 1e-5) for function in (by_channel, F.group_norm))
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.02)


def test_it_is_written_out_where_a_cpus_is_compiled(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    mine, x = GroupNorm(4, 8), torch.randn(2, 8, 4, 4)
    assert "ByChannel" in mine(x).grad_fn.name()
    torch.testing.assert_close(mine(x), torch.nn.GroupNorm(4, 8)(x))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_added_before_and_silu_after_are_as_apart(monkeypatch, compiled):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    torch.manual_seed(0)
    norm, x, shift = GroupNorm(4, 8), torch.randn(2, 8, 4, 4), torch.randn(2, 8)
    torch.testing.assert_close(norm(x, shift, silu=True), F.silu(norm(x + shift[:, :, None, None])))


def test_on_a_cpu_the_module_is_torchs():
    x = torch.randn(2, 8, 4, 4)
    mine, torchs = GroupNorm(4, 8), torch.nn.GroupNorm(4, 8)
    assert torch.equal(mine(x), torchs(x)) and mine.state_dict().keys() == torchs.state_dict().keys()

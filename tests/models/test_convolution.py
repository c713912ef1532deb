"""The weight's gradient of pictures that lie side by side is that of the convolution."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffusion.models import convolution
from diffusion.models.convolution import Convolution, ShortRows


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 2, 3, 32, 48]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5),
       st.integers(0, 100))
def test_short_rows_are_convolved_as_others_are(n, c, d, h, w, seed):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    x, weight, bias, dy = drawn(n, c, h, w), drawn(d, c, 3, 3), drawn(d), drawn(n, d, h, w).detach()
    found, expected = ShortRows.apply(x, weight, bias), F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("width", "compiling", "dtype", "short"), [
    (8, True, torch.bfloat16, True), (16, True, torch.bfloat16, False), (8, False, torch.bfloat16, False),
    (8, True, torch.float32, False)])
def test_only_short_rows_of_bfloat16_are_when_it_is_compiled_for_amx(width, compiling, dtype, short, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(convolution, "AMX", True)
    mine, torchs = Convolution(4, 6), nn.Conv2d(4, 6, 3, padding=1)
    torchs.load_state_dict(mine.state_dict())
    x, dy = torch.randn(8, 4, 3, width), torch.randn(8, 6, 3, width)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        expected = torchs(x)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
        found = mine(x)
    assert ("ShortRows" in found.grad_fn.name()) is short and found.dtype == dtype
    assert torch.equal(found, expected)
    found.backward(dy.to(dtype))
    expected.backward(dy.to(dtype))
    for ours, theirs in zip(mine.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.01, atol=0.01 * theirs.grad.abs().max().item())

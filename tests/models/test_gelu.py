"""GELU by interpolation has more digits than bf16."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from diffusion.models.gelu import Interpolated, gelu


@given(st.floats(-20, 20, width=32))
def test_value_and_slope_are_near_the_exact_ones(x):
    near, exact = (torch.tensor(x, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64))
    y, z = Interpolated.apply(near), F.gelu(exact)
    assert abs(y - z) < 5e-5
    assert abs(torch.autograd.grad(y, near)[0] - torch.autograd.grad(z, exact)[0]) < 5e-5


@pytest.mark.parametrize("x", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(x):
    torch.testing.assert_close(Interpolated.apply(torch.tensor(x)), torch.tensor(x), equal_nan=True)


@pytest.mark.parametrize(("dtype", "compiled", "interpolated"), [
    (torch.bfloat16, True, True), (torch.bfloat16, False, False), (torch.float32, True, False)])
def test_it_is_interpolated_where_it_is_compiled_in_bfloat16(monkeypatch, dtype, compiled, interpolated):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    x = torch.linspace(-8, 8, 201, dtype=dtype, requires_grad=True)
    y = gelu(x)
    assert ("Interpolated" in y.grad_fn.name()) == interpolated and y.dtype is dtype
    torch.testing.assert_close(y, F.gelu(x), rtol=1e-2, atol=1e-4)

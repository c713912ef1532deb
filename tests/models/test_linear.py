"""A bias that is added apart is added all the same."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion.models.linear import Linear


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_torchs(monkeypatch, compiled, dtype):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    mine, torchs, x = Linear(8, 4), nn.Linear(8, 4), torch.randn(2, 3, 8)
    torchs.load_state_dict(mine.state_dict())
    with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        y, z = mine(x), torchs(x)
    assert_close(y, z)
    for ours, theirs in zip(*(torch.autograd.grad(out.sum(), layer.parameters())
                              for out, layer in ((y, mine), (z, torchs))), strict=True):
        assert_close(ours, theirs)

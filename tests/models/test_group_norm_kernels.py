"""The Triton kernels against group normalisation in float64: on a CUDA device, or interpreted on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from diffusion.models import normalization
from diffusion.models.blocks import ResidualBlock
from diffusion.models.group_norm_operation import fits_kernel, in_one_kernel

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where conftest.py has them interpreted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "groups", "h", "w"), [
    (64, 32, 24, 24), (96, 8, 5, 7), (40, 2, 4, 4), (384, 32, 8, 8), (320, 32, 2, 2), (24, 4, 1, 1)])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_one_kernel_is_group_normalisation_with_its_gradients(dtype, channels, groups, h, w, silu, shifted):
    torch.manual_seed(0)
    x = (3 + torch.randn(2, channels, h, w)).to(DEVICE, dtype, memory_format=torch.channels_last)
    shift, weight, bias = (torch.randn(size, device=DEVICE) for size in ((2, channels), channels, channels))
    inputs = [t.requires_grad_() for t in (x, *([shift] if shifted else []), weight, bias)]
    y = in_one_kernel(x, shift if shifted else None, weight, bias, groups, 1e-5, silu)[0]
    dy = torch.randn_like(y)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    z = F.group_norm(exact[0] + exact[1][:, :, None, None] if shifted else exact[0], groups, *exact[-2:], 1e-5)
    z = F.silu(z) if silu else z
    found, expected = torch.autograd.grad(y, inputs, dy), torch.autograd.grad(z, exact, dy.double())
    for ours, theirs in zip((y, *found), (z, *expected), strict=True):
        assert (ours - theirs).norm() < (5e-3 if dtype is torch.bfloat16 else 1e-5) * theirs.norm()
    assert y.dtype is dtype and y.is_contiguous(memory_format=torch.channels_last)


def test_float32_keeps_its_digits_far_from_zero():
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000
    x = x.to(DEVICE, memory_format=torch.channels_last)
    found = in_one_kernel(x, None, torch.ones(8, device=DEVICE), torch.zeros(8, device=DEVICE), 4, 1e-5, False)[0]
    assert_close(found.double(), F.group_norm(x.double(), 4), rtol=0, atol=1e-3)


def test_the_compiler_is_told_the_right_shapes():
    x = torch.randn(2, 8, 4, 4, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_()
    shift, weight = torch.randn(2, 8, device=DEVICE, requires_grad=True), torch.ones(8, device=DEVICE)
    torch.library.opcheck(in_one_kernel, (x, shift, weight, weight, 4, 1e-5, True))


def test_a_compiled_residual_block_has_the_eager_ones_gradients(compilable, monkeypatch):
    monkeypatch.setattr(normalization, "fits_kernel", lambda x, groups: True)
    torch.manual_seed(0)
    block = ResidualBlock(16, 24, norm_groups=4, emb_dim=8)
    torch.nn.init.normal_(block.conv2.weight)
    block = block.to(DEVICE, memory_format=torch.channels_last)
    x, emb = torch.randn(2, 16, 6, 6).to(DEVICE, memory_format=torch.channels_last), torch.randn(2, 8, device=DEVICE)
    inputs = [x.requires_grad_(), emb.requires_grad_(), *block.parameters()]
    y, z = torch.compile(block, backend="aot_eager")(x, emb), block(x, emb)
    assert_close(y, z, rtol=1e-4, atol=1e-4)
    dy = torch.randn_like(z)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(z, inputs, dy), strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_it_is_not_for_a_cpu_nor_for_other_layouts():
    assert not fits_kernel(torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last), 4)
    if torch.cuda.is_available():
        x = torch.randn(2, 8, 4, 4, device="cuda")
        assert fits_kernel(x.to(memory_format=torch.channels_last), 4) and not fits_kernel(x, 4)

"""What the U-Net's blocks do that no picture shows."""

import pytest
import torch

from diffusion.models.blocks import DenseGradient


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_slice_lies_as_densely_as_what_was_concatenated(layout):
    x, skip = (torch.randn(2, c, 4, 4).to(memory_format=layout).requires_grad_() for c in (3, 5))
    dy, seen = torch.randn(2, 8, 4, 4).to(memory_format=layout), {}
    inputs = {"x": 1 * x, "skip": 1 * skip}
    for name, part in inputs.items():
        part.register_hook(lambda gradient, name=name: seen.update({name: gradient}))
    joined = torch.cat([DenseGradient.apply(part) for part in inputs.values()], 1)
    assert torch.equal(joined, torch.cat([x, skip], 1))
    joined.backward(dy)
    assert torch.equal(x.grad, dy[:, :3]) and torch.equal(skip.grad, dy[:, 3:])
    assert all(gradient.is_contiguous(memory_format=layout) for gradient in seen.values())

"""The discriminator judges patches of the stated size, every one of them alike."""

import pytest
import torch

from diffusion.models.discriminator import Discriminator


@pytest.mark.parametrize(("widths", "patch"), [((8, 16, 16), 34), ((8, 16, 16, 16), 70), ((8, 8), 16)])
def test_a_logit_sees_one_patch(widths, patch):
    network = Discriminator(widths=widths, norm_groups=None)
    x = torch.randn(1, 3, 160, 160, requires_grad=True)
    logits = network(x)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == patch


@pytest.mark.parametrize("norm_groups", [None, 4])
def test_every_parameter_learns_at_the_smallest_size(norm_groups):
    network = Discriminator(widths=(8, 16, 16), norm_groups=norm_groups).to(memory_format=torch.channels_last)
    logits = network(torch.randn(2, 3, network.smallest, network.smallest))
    assert logits.shape == (2, 1, 1, 1)
    logits.square().sum().backward()
    assert all(p.grad.any() for p in network.parameters())


def test_pictures_are_judged_alone():
    network = Discriminator(widths=(8, 16, 16), norm_groups=4).double()
    x = torch.randn(3, 3, 32, 32).double()
    torch.testing.assert_close(network(x), torch.cat([network(row) for row in x.split(1)]))


def test_what_does_not_fit_is_refused():
    for change, words in (({"widths": (8,)}, "two widths or more"), ({"norm_groups": 5}, "norm_groups=5")):
        with pytest.raises(ValueError, match=words):
            Discriminator(**({"widths": (8, 16)} | change))
    network = Discriminator(widths=(8, 16, 16), norm_groups=None)
    for shape in ((1, 3, 32, 11), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match="at least 12 pixels"):
            network(torch.zeros(shape))

"""The judge: a head per attribute, and one answer for a picture and its mirror image where pictures may be mirrored."""

import torch

from diffusion.models.classifier import Classifier


def small(mirror):
    torch.manual_seed(0)
    return Classifier([3, 5], widths=[8, 16], blocks_per_level=1, mirror=mirror)


def test_a_head_answers_for_each_attribute():
    assert [tuple(head.shape) for head in small(False)(torch.randn(2, 3, 16, 16))] == [(2, 3), (2, 5)]


def test_in_evaluation_a_picture_and_its_mirror_image_get_the_mean_of_their_answers():
    x, plain, mirrored = torch.randn(2, 3, 16, 16), small(False).eval(), small(True).eval()
    for here, there, mean, again in zip(plain(x), plain(x.flip(-1)), mirrored(x), mirrored(x.flip(-1)), strict=True):
        assert (here - there).abs().max() > 1e-3
        torch.testing.assert_close(mean, (here + there) / 2)
        torch.testing.assert_close(mean, again)
    x = torch.randn(8, 3, 16, 16)
    for here, trained in zip(small(False).train()(x), small(True).train()(x), strict=True):
        torch.testing.assert_close(here, trained)  # each picture as it is drawn

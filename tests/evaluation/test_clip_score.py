"""The CLIP score of vectors whose angles are known."""

import pytest
import torch

from diffusion.evaluation.metrics.clip_score import clip_score


def test_is_100_times_the_cosine_and_never_negative():
    images = torch.tensor([[2.0, 0.0], [3.0, 3.0], [1.0, 0.0]])
    texts = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert clip_score(images[:2], texts[:2]).value == pytest.approx((100 + 100 / 2**0.5) / 2)
    assert clip_score(images, texts).value == pytest.approx((100 + 100 / 2**0.5 + 0) / 3)


def test_rows_must_be_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        clip_score(torch.ones(3, 2), torch.ones(2, 2))

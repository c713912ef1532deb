import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError

from diffusion.data.captioned import CaptionedDataset, CaptionedImages, Prompts
from diffusion.data.cifar10 import Cifar10
from diffusion.data.shapes import Shapes


def two_pictures() -> dict:
    return {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "captions": ("a ring", "one ring", "a cross", "one cross"),
        "caption_ids": torch.tensor([[0, 1], [3, 2]]),
        "content": torch.tensor([0, 1]),
        "labels": torch.tensor([[4], [-1]]),
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, "images: uint8"),
        ({"caption_ids": torch.tensor([[0, 1], [3, 4]])}, "0..3"),
        ({"caption_ids": torch.tensor([[0, 1], [3, -1]])}, "0..3"),
        ({"caption_ids": torch.zeros(2, 0, dtype=torch.int64)}, "at least one caption"),
        ({"caption_ids": torch.tensor([[0, 1]])}, "1 rows, images has 2"),
        ({"captions": ("a ring", "a ring", "a cross", "one cross")}, "'a ring' is repeated"),
        ({"content": torch.tensor([0.0, 1.0])}, "content: int64"),
        ({"labels": torch.tensor([[4], [-2]])}, "-1"),
    ],
)
def test_a_malformed_split_is_refused_with_the_reason(change, message):
    with pytest.raises((ValueError, TypeCheckError)) as caught:
        CaptionedImages(**(two_pictures() | change))
    if caught.type is ValueError:  # else the suite's own check of shapes came first
        assert message in str(caught.value)


def test_a_subset_keeps_the_meaning_of_caption_ids():
    part = CaptionedImages(**two_pictures()).subset(torch.tensor([1]))
    assert len(part) == 1
    assert [part.captions[i] for i in part.caption_ids[0]] == ["one cross", "a cross"]
    assert part.labels.tolist() == [[-1]]


def test_a_split_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CaptionedImages(**two_pictures()).captions = ()


def test_prompts_need_one_row_of_labels_each():
    with pytest.raises(ValueError, match="1 rows, captions has 2"):
        Prompts(("a ring", "a cross"), torch.tensor([[0]]))


def test_data_sets_follow_the_protocol():
    assert isinstance(Shapes(train=2, test=2), CaptionedDataset)
    assert isinstance(Cifar10(), CaptionedDataset)
    assert not isinstance("shapes", CaptionedDataset)

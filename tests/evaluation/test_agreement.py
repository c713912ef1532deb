"""Retrieval on embeddings whose order is known."""

import torch

from diffusion.evaluation.agreement import retrieved


def test_pictures_find_their_own_prompts_and_not_those_of_others():
    prompts = torch.eye(20)
    assert retrieved(prompts, prompts, torch.arange(20)).all()
    assert not retrieved(prompts.roll(1, 0), prompts, torch.arange(20)).any()


def test_a_prompt_of_the_same_content_is_no_rival():
    prompts, content = torch.eye(2)[torch.tensor([0, 0, 1, 1, 0])], torch.tensor([0, 0, 1, 1, 0])
    images = prompts.clone()
    images[0] = torch.tensor([0.6, 0.8])
    assert retrieved(images, prompts, content).tolist() == [False, True, True, True, True]


def test_chance_is_one_in_a_hundred():
    torch.manual_seed(0)
    images, prompts = (torch.nn.functional.normalize(torch.randn(20_000, 4), dim=1) for _ in range(2))
    share = retrieved(images, prompts, torch.arange(20_000)).double().mean().item()
    assert 0.008 < share < 0.012

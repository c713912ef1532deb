"""How much the prompt changes, on networks whose answer is known."""

import dataclasses

import pytest
import torch
from torch import nn

from diffusion.conditioning import Conditioning
from diffusion.data.shapes import Shapes
from diffusion.denoiser import Denoiser
from diffusion.evaluation.sensitivity import of_ratio, prompt_sensitivity, shuffled
from diffusion.latent import LatentDiffusion
from diffusion.models.identity import Identity
from diffusion.parameterizations import X0
from diffusion.schedules import Cosine, ScaledLinear

PICTURES = Shapes(train=1, test=24, image_size=16).split("test")


class Tells(nn.Module):
    """x_0 is the caption's number everywhere; the network answers gain times it."""

    def __init__(self, gain: float):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x, label, cond):
        return (self.gain * cond.pooled[:, :, None, None]).expand_as(x)


class Text(nn.Module):
    """Each caption's place in the table, as a number."""

    def forward(self, captions):
        return Conditioning(pooled=torch.tensor([[PICTURES.captions.index(c) / 10.0] for c in captions]))


def found(gain, schedule=None, pictures=PICTURES):
    denoiser = Denoiser(Tells(gain), schedule or Cosine(), X0())
    model = LatentDiffusion(Identity(3), None, denoiser, (3, 16, 16))
    model.text_encoder = Text()
    return prompt_sensitivity(model, pictures, 0, batch=7)


def test_a_network_that_ignores_the_prompt_has_none():
    for bin in found(0.0):
        assert bin.difference == bin.relative.value == 0 and bin.error == bin.error_shuffled > 0


def test_the_change_is_the_answers_own():
    other, differs = shuffled(PICTURES.content, 0)
    assert differs.all()
    number = PICTURES.caption_ids[:, 0] / 10.0
    expected = (2 * (number[other] - number)).square().mean().item()
    bins = found(2.0)
    assert len(bins) == 8
    for bin in bins:
        assert bin.difference == pytest.approx(expected, rel=1e-4)
        assert bin.relative.value == pytest.approx(bin.difference / bin.error, rel=1e-6)
        assert bin.relative.low < bin.relative.value < bin.relative.high


def test_bins_end_where_the_schedule_does():
    bins = found(1.0, ScaledLinear())
    assert bins[0].log_snr == (ScaledLinear().log_snr_range[0], -4.0) and bins[-1].log_snr == (6.0, 8.0)


def test_a_shuffle_gives_other_content_wherever_it_can():
    for content in ([0, 0, 0, 1, 1, 1], [5, 1, 2, 2, 2, 3, 1, 1], [0, 1]):
        other, differs = shuffled(torch.tensor(content), 3)
        assert differs.all() and sorted(other.tolist()) == list(range(len(content)))
    assert shuffled(torch.tensor([0, 0, 0, 1]), 0)[1].sum() == 2


def test_pictures_of_one_content_cannot_tell():
    same = dataclasses.replace(PICTURES, content=torch.zeros(24, dtype=torch.int64))
    with pytest.raises(ValueError, match="all pictures have the same"):
        found(1.0, pictures=same)


def test_the_interval_of_a_ratio_holds_it_in_95_of_100_cases():
    torch.manual_seed(0)
    found = [of_ratio(torch.rand(200), 1 + torch.rand(200)) for _ in range(1000)]
    assert 0.93 <= sum(one.low <= 1 / 3 <= one.high for one in found) / 1000 <= 0.97

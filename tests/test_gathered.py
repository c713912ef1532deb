"""Gradients in one tensor are the same gradients, clipped the same, and stay where they are."""

import copy

import pytest
import torch
from torch import nn

from diffusion.training.gathered import Gathered

CHANNELS_LAST = {"memory_format": torch.channels_last}


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape)) for shape in [(5, 3), (4, 2, 3, 3), (), (7,), (4, 6, 1, 1)]]
    made[1].data, made[4].data = (made[i].data.to(**CHANNELS_LAST) for i in (1, 4))
    return made


def arrive(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        gradient = torch.randn(p.shape, generator=generator)
        p.grad = gradient.to(**CHANNELS_LAST) if p.ndim == 4 and p.shape[-1] > 1 else gradient


@pytest.mark.parametrize("most", [0.1, 100.0])
@pytest.mark.parametrize("clipped", [5, 3])
def test_clipping_is_torchs_of_those_that_are_clipped(parameters, most, clipped):
    others = copy.deepcopy(parameters)
    gathered = Gathered(parameters[:clipped], parameters[clipped:])
    for seed in range(3):
        for each in (parameters, others):
            arrive(each, seed)
        gathered.gather()
        norm = gathered.clip(most)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(others[:clipped], most))
        for ours, theirs in zip(parameters, others, strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradients_stay_where_they_are_and_as_they_came(parameters):
    gathered, where = Gathered(parameters), []
    for seed in range(2):
        arrive(parameters, seed)
        strides = [p.grad.stride() for p in parameters]
        gathered.gather()
        where.append([p.grad.data_ptr() for p in parameters])
        assert [p.grad.stride() for p in parameters] == strides
    assert where[0] == where[1]


def test_what_has_no_gradient_counts_nothing_and_gets_none(parameters):
    gathered = Gathered(parameters)
    arrive(parameters, 0)
    gathered.gather()
    arrive(parameters, 1)
    parameters[0].grad = None
    expected = torch.stack([p.grad.norm() for p in parameters[1:]]).norm()
    gathered.gather()
    torch.testing.assert_close(gathered.clip(1e9), expected)
    assert parameters[0].grad is None


def test_a_gradient_that_lies_in_a_larger_tensor_is_gathered(parameters):
    wide = torch.randn(5, 6)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    parameters[0].grad = wide[:, ::2]
    Gathered(parameters).gather()
    assert torch.equal(parameters[0].grad, wide[:, ::2])


def test_a_gradient_that_is_not_finite_is_seen(parameters):
    arrive(parameters, 0)
    parameters[2].grad.fill_(torch.inf)
    gathered = Gathered(parameters)
    gathered.gather()
    assert not gathered.clip(1.0).isfinite()

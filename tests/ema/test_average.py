"""Laws of every kind of average, and the one with a warm-up against diffusers'."""

import copy

import pytest
import torch
from torch import nn

from diffusion.ema import EMA
from tests.options import options

KINDS = options("ema", batch=4)


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def walk(model, seed):
    """What an optimizer does, as far as an average can tell."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=generator)


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def tensors(state):
    """All of a state's, however it is nested."""
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors(value)]
    return [torch.as_tensor(state)]


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_agrees_with_diffusers(decay):
    EMAModel = pytest.importorskip("diffusers.training_utils").EMAModel
    model = module()
    ours, theirs = EMA(model, decay), EMAModel(model.parameters(), decay=decay)
    for k in range(40):
        ours.update()  # the first update, where diffusers copies, sees the initial weights
        theirs.step(model.parameters())
        for mine, other in zip(ours.shadows.values(), theirs.shadow_params, strict=True):
            torch.testing.assert_close(mine, other)
        walk(model, k)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_still_is_its_own_average(kind):
    model = module()
    ema = kind(model)
    for _ in range(20):
        ema.update()
    assert all(
        torch.equal(shadow, p) for shadow, p in zip(ema.shadows.values(), model.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_initial_weights_are_forgotten(kind):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = kind(model)
    nn.init.constant_(model.weight, 0.0)
    for _ in range(100):
        ema.update()
    assert 0 <= ema.shadows["weight"] < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_shows_the_averages_and_restores_every_bit(kind):
    model = module()
    ema = kind(model)
    walk(model, 0)
    ema.update()
    own, memory = values(model), [p.data_ptr() for p in model.parameters()]
    with ema.swapped(model) as inside:
        assert inside is model
        assert all(torch.equal(p, s) for p, s in zip(model.parameters(), ema.shadows.values(), strict=True))
        assert [p.data_ptr() for p in model.parameters()] == memory
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), own, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_restores_after_an_error(kind):
    model = module()
    ema = kind(model)
    walk(model, 0)
    own = values(model)
    with pytest.raises(KeyError), ema.swapped(model):
        raise KeyError
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), own, strict=True))
    ema.update()


@pytest.mark.parametrize("kind", KINDS)
def test_averages_are_neither_updated_nor_swapped_while_in_place(kind):
    model = module()
    ema = kind(model)
    before = copy.deepcopy(ema.state_dict())
    walk(model, 0)
    with ema.swapped(model):
        with pytest.raises(RuntimeError):
            ema.update()
        with pytest.raises(RuntimeError), ema.swapped(model):
            pass
    assert all(torch.equal(a, b) for a, b in zip(tensors(ema.state_dict()), tensors(before), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_continues_to_the_bit(kind):
    model = module()
    ema = kind(model)
    for k in range(5):
        walk(model, k)
        ema.update()
    state, other_model = copy.deepcopy(ema.state_dict()), copy.deepcopy(model)
    other = kind(other_model)
    other.load_state_dict(state)
    for k in range(5):
        for each, average in [(model, ema), (other_model, other)]:
            walk(each, k)
            average.update()
    pairs = zip(tensors(ema.state_dict()), tensors(other.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_shadows_of_a_bfloat16_module_are_float32(kind):
    model = module().bfloat16()
    ema = kind(model)
    walk(model, 0)
    ema.update()
    assert all(shadow.dtype == torch.float32 for shadow in ema.shadows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_another_module_is_refused(kind):
    with pytest.raises(ValueError, match="missing"):
        kind(module()).load_state_dict(kind(nn.Linear(2, 2)).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_shadows_follow_the_layout_of_their_parameters(kind):
    model = nn.Conv2d(3, 4, 3)
    ema = kind(model)
    model.to(memory_format=torch.channels_last)
    assert ema.to("cpu").shadows["weight"].stride() == model.weight.stride()
    ema.update()
    assert torch.equal(ema.shadows["weight"], model.weight)

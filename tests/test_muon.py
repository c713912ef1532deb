"""Muon is torch's on matrices and AdamW on the rest; nothing bad reaches the weights."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffusion.acceleration import Acceleration
from diffusion.training.base import Training
from diffusion.training.moments import lay_as_parameters
from diffusion.training.muon import Muon, is_wide, orthogonalized


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24), (2, 16, 144), (3, 160, 20)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    well = u @ torch.diag_embed(s.clamp(min=0.3)) @ vh
    inside = u.mT @ orthogonalized(well) @ vh.mT  # in the basis of its own directions: a diagonal
    found = torch.diagonal(inside, dim1=1, dim2=2)
    assert (found > 0.68).all() and (found < 1.21).all()
    torch.testing.assert_close(inside, torch.diag_embed(found), rtol=0, atol=1e-4)


@pytest.mark.parametrize("smallest", [1e-2, 1e-4, 1e-8, 0])
def test_the_shorter_form_of_long_matrices_is_the_iteration_on_their_singular_values(smallest):
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(2, 32, 32, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(2, 200, 32, generator=generator, dtype=torch.float64))
    s = torch.linspace(1, smallest**0.25, 32, dtype=torch.float64) ** 4
    moved = s / s.norm()
    for _ in range(5):
        moved = 3.4445 * moved - 4.775 * moved**3 + 2.0315 * moved**5
    expected = (u * moved @ v.mT).float()
    torch.testing.assert_close(orthogonalized((u * s @ v.mT).float(), torch.bfloat16), expected, rtol=0, atol=1e-3)


def test_scale_does_not_count():
    matrices = torch.randn(2, 16, 20)
    torch.testing.assert_close(orthogonalized(1000 * matrices), orthogonalized(matrices), rtol=1e-3, atol=1e-3)


def steps(optimizer, parameters, gradients):
    for round_ in gradients:
        for p, g in zip(parameters, round_, strict=True):
            p.grad = g.clone()
        optimizer.step()


def drawn(shapes, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return parameters, [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(count)]


def test_matrices_move_as_by_torchs_muon():
    parameters, gradients = drawn([(16, 40), (48, 20), (16, 40)])
    others = copy.deepcopy(parameters)
    mine = Muon(parameters, lr=0.01, weight_decay=0.1)
    mine.compute_dtype = torch.bfloat16  # torch's
    steps(mine, parameters, gradients)
    steps(torch.optim.Muon(others, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), others, gradients)
    for ours, theirs in zip(parameters, others, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=4 * 0.01 * 0.2 * 48**0.5 * 0.02)  # bf16's rounding


def test_a_convolution_moves_as_its_matrix():
    (kernel,), gradients = drawn([(16, 8, 3, 3)])
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    steps(Muon([kernel]), [kernel], gradients)
    steps(Muon([matrix]), [matrix], [[g.flatten(1) for g in round_] for round_ in gradients])
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_channels_last_changes_nothing():
    (kernel,), gradients = drawn([(16, 8, 3, 3)])
    other = nn.Parameter(kernel.detach().clone(memory_format=torch.channels_last))
    steps(Muon([kernel]), [kernel], gradients)
    steps(Muon([other]), [other], [[g.to(memory_format=torch.channels_last) for g in round_] for round_ in gradients])
    torch.testing.assert_close(kernel, other.contiguous())


@pytest.mark.parametrize("make", [Muon, partial(torch.optim.AdamW, fused=True)])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (4, 8, 3, 3)])
def test_a_run_that_goes_on_in_another_memory_format_moves_alike(make, shape):
    (kernel,), gradients = drawn([shape])
    other = nn.Parameter(kernel.detach().clone())
    whole, first = make([kernel]), make([other])
    steps(whole, [kernel], gradients)
    steps(first, [other], gradients[:2])
    other.data = other.data.to(memory_format=torch.channels_last)
    second = make([other])
    second.load_state_dict(first.state_dict())
    lay_as_parameters(second)
    steps(second, [other], [[g.to(memory_format=torch.channels_last) for g in round_] for round_ in gradients[2:]])
    torch.testing.assert_close(kernel, other.contiguous())


@pytest.mark.parametrize("fused", [True, False])
def test_the_rest_moves_as_by_adamw(fused):
    shapes = [(7,), (4, 100), (3, 2, 3, 3)]
    parameters, gradients = drawn(shapes)
    assert not any(map(is_wide, parameters))
    others = copy.deepcopy(parameters)
    kept = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": fused}
    steps(Muon(parameters, **kept), parameters, gradients)
    steps(torch.optim.AdamW(others, **kept), others, gradients)
    torch.testing.assert_close(parameters, others)


def test_it_goes_on_from_its_state_to_the_bit():
    parameters, gradients = drawn([(16, 40), (7,)], count=6)
    others = copy.deepcopy(parameters)
    optimizer = Muon(parameters)
    steps(optimizer, parameters, gradients)
    first, second = Muon(others), Muon(others)
    steps(first, others, gradients[:3])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, others, gradients[3:])
    assert all(map(torch.equal, parameters, others))


def test_a_copy_goes_on_by_itself():
    parameters, gradients = drawn([(16, 40), (7,)], count=2)
    optimizer = Muon(parameters)
    optimizer.compute_dtype = torch.bfloat16
    steps(optimizer, parameters, gradients[:1])
    other = copy.deepcopy(optimizer)
    assert other.recorded == {} and other.compute_dtype == torch.bfloat16
    steps(optimizer, parameters, gradients[1:])
    steps(other, other.param_groups[0]["params"], gradients[1:])
    assert all(map(torch.equal, parameters, other.param_groups[0]["params"]))


def test_an_update_that_is_not_finite_moves_nothing():
    """As on a CUDA device, where nothing waits to see it."""
    parameters, gradients = drawn([(16, 40), (7,)], count=2)
    optimizer = Muon(parameters, weight_decay=0.5)
    steps(optimizer, parameters, gradients[:1])

    def held():
        return [*parameters, *(state[name] for state in optimizer.state.values() for name in sorted(state))]

    before = [tensor.clone() for tensor in held()]
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())
    steps(optimizer, parameters, [[torch.full_like(p, torch.nan) for p in parameters]])
    assert all(map(torch.equal, held(), before))
    optimizer.found_inf = torch.zeros(())
    steps(optimizer, parameters, gradients[1:])
    assert not any(map(torch.equal, parameters, before))


def test_the_closure_is_called_with_gradients_on():
    weight = nn.Parameter(torch.randn(16, 16))
    before, optimizer = weight.detach().clone(), Muon([weight])

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before.square().sum()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize(("precision", "dtype"), [
    ("32", torch.float32), ("16-mixed", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_it_computes_in_the_plans_precision(precision, dtype):
    told = SimpleNamespace(make_optimizer=Muon, acceleration=Acceleration(precision=precision))
    assert Training.optimizer_of(told, [nn.Parameter(torch.zeros(16, 16))]).compute_dtype == dtype


def test_a_momentum_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"optimizer.momentum: at least 0 and below 1, got 1"):
        Muon([nn.Parameter(torch.zeros(3))], momentum=1.0)

from itertools import permutations

import pytest
import torch

from diffusion.couplings import optimal_transport
from tests.options import options

X0, EPS = torch.randn(2, 64, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def cost(x0, eps):
    return (x0 - eps).square().sum().item()


def rows_of(x):
    return sorted(map(tuple, x.flatten(1).tolist()))


@pytest.mark.parametrize("coupling", options("coupling"))
def test_every_noise_is_used_once(coupling):
    assert rows_of(coupling(X0, EPS)) == rows_of(EPS)


def test_no_pairing_is_cheaper():
    x0, eps = X0[:6], EPS[:6]
    best = min(cost(x0, eps[list(order)]) for order in permutations(range(6)))
    assert cost(x0, optimal_transport(x0, eps, group=6)) == pytest.approx(best, rel=1e-6)


def test_in_one_dimension_it_sorts():
    x0, eps = X0.flatten()[:32, None], EPS.flatten()[:32, None]
    coupled = optimal_transport(x0, eps, group=32)
    assert torch.equal(coupled[x0[:, 0].argsort()], eps.sort(0).values)


def test_a_larger_group_costs_no_more():
    costs = [cost(X0, optimal_transport(X0, EPS, group=group)) for group in (1, 4, 16, 64)]
    assert costs[0] == pytest.approx(cost(X0, EPS)) and costs == sorted(costs, reverse=True)


def test_the_parts_of_a_batch_are_coupled_as_the_whole_is():
    whole = optimal_transport(X0, EPS, group=16)
    parts = [optimal_transport(x, e, group=16) for x, e in zip(X0.split(32), EPS.split(32), strict=True)]
    assert torch.equal(whole, torch.cat(parts))


def test_rows_that_make_no_whole_groups_are_refused():
    with pytest.raises(ValueError, match=r"coupling\.group = 48 does not divide the 64 rows"):
        optimal_transport(X0, EPS, group=48)

import math

import pytest
import torch
from torch import nn

from diffusion.ema import PowerAverage, PowerEMA, gamma_of, sigma_rel_of
from diffusion.ema.power import WIDEST

WIDTHS = [0.01, 0.05, 0.1, 0.2, WIDEST]


def trajectory(model: nn.Module, steps: int):
    """Random weights after each update, drawn anew as they are asked for."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        yield torch.cat([p.detach().flatten() for p in model.parameters()]).double()


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 1, 6.94, 16.97, 1e3, 1e6])
def test_width_and_exponent_are_inverse(gamma):
    assert gamma_of(sigma_rel_of(gamma)) == pytest.approx(gamma, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sigma_rel", [*WIDTHS, 1e-4, 0.25])
def test_exponent_and_width_are_inverse(sigma_rel):
    assert gamma_of(sigma_rel) >= -1e-9
    assert sigma_rel_of(gamma_of(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-9)


def test_wider_averages_have_smaller_exponents():
    gammas = [gamma_of(width) for width in WIDTHS]
    assert gammas == sorted(gammas, reverse=True)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.2887, 0.3, math.nan])
def test_widths_that_no_profile_has_are_refused(sigma_rel):
    with pytest.raises(ValueError, match=r"at most at 0\.2886"):
        gamma_of(sigma_rel)
    with pytest.raises(ValueError, match=r"at most at 0\.2886"):
        PowerEMA(nn.Linear(1, 1), [0.1, sigma_rel])


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_the_profile_has_the_width_it_is_named_by(sigma_rel):
    gamma, n = gamma_of(sigma_rel), 100_000
    tau = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    p = (gamma + 1) * tau**gamma / n
    mean = (p * tau).sum()
    assert p.sum().item() == pytest.approx(1, rel=1e-6)
    assert (p * (tau - mean) ** 2).sum().sqrt().item() == pytest.approx(sigma_rel, rel=1e-5)


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_the_running_average_is_the_weighted_mean_of_the_trajectory(sigma_rel):
    """theta(k) has the weight that the profile lays on (k - 1, k]."""
    model, gamma, n = nn.Linear(3, 2), gamma_of(sigma_rel), 60
    average, seen = PowerAverage(model, sigma_rel), []
    for theta in trajectory(model, n):
        seen.append(theta)
        average.update()
    k = torch.arange(n + 1, dtype=torch.float64)
    weights = ((k / n) ** (gamma + 1)).diff()
    ours = torch.cat([s.flatten() for s in average.shadows.values()]).double()
    torch.testing.assert_close(ours, weights @ torch.stack(seen), rtol=1e-5, atol=1e-6)


def test_the_first_of_several_widths_stands_for_the_model():
    model = nn.Linear(3, 2)
    several, alone = PowerEMA(model, [0.2, 0.05]), {w: PowerAverage(model, w) for w in (0.2, 0.05)}
    for _ in trajectory(model, 5):
        for each in (several, *alone.values()):
            each.update()
    assert torch.equal(several.shadows["weight"], alone[0.2].shadows["weight"])
    assert torch.equal(several.averages[0.05].shadows["weight"], alone[0.05].shadows["weight"])
    with several.swapped(model):
        assert torch.equal(model.weight, alone[0.2].shadows["weight"])


@pytest.mark.parametrize("wrong", [{"sigma_rels": []}, {"snapshot_every": 0}])
def test_no_width_and_no_cadence_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one"):
        PowerEMA(nn.Linear(1, 1), **wrong)

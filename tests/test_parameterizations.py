import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.parameterizations import X0, Epsilon, V
from diffusion.schedules import Linear
from diffusion.schedules.path import linear, ve, vp
from tests.curves import Line, ZeroTerminal
from tests.options import admissible, options

SCHEDULES = [*options("schedule"), Line(vp), Line(ve), Line(linear), ZeroTerminal()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_parameterization = pytest.mark.parametrize("parameterization", options("parameterization"))


@every_schedule
@every_parameterization
@settings(max_examples=30, deadline=None)
@given(t=st.lists(st.floats(0.001, 1), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_round_trip(schedule, parameterization, t, seed):
    if not admissible(schedule, parameterization):
        pytest.skip("refused")
    x0, eps = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = torch.tensor(t, dtype=torch.float64)
    x_t = schedule.diffuse(x0, t, eps)
    y = parameterization.target(x0, eps, schedule, t)
    torch.testing.assert_close(parameterization.to_x0(y, x_t, schedule, t), x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(parameterization.to_eps(y, x_t, schedule, t), eps, rtol=0, atol=1e-8)


@every_schedule
@every_parameterization
def test_what_is_said_of_x0_and_eps_agrees_with_x_t(schedule, parameterization):
    if not admissible(schedule, parameterization):
        pytest.skip("refused")
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    y, x_t = torch.randn(2, 7, 5, dtype=torch.float64)
    x0 = parameterization.to_x0(y, x_t, schedule, t)
    eps = parameterization.to_eps(y, x_t, schedule, t)
    torch.testing.assert_close(schedule.diffuse(x0, t, eps), x_t)


@every_schedule
@every_parameterization
def test_x0_factor_turns_errors_of_x0_into_errors_of_y(schedule, parameterization):
    if not admissible(schedule, parameterization):
        pytest.skip("refused")
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    y, other, x_t = torch.randn(3, 7, 5, dtype=torch.float64)
    of_y = (y - other).square().sum(1)
    x0, x0_other = (parameterization.to_x0(each, x_t, schedule, t) for each in (y, other))
    of_x0 = (x0 - x0_other).square().sum(1)
    torch.testing.assert_close(of_y, parameterization.x0_factor(schedule, t) * of_x0)


@every_parameterization
@pytest.mark.parametrize("schedule", [*options("schedule"), ZeroTerminal()])
def test_without_noise_x_t_is_x0(schedule, parameterization):
    x_t, y = torch.randn(2, 3, 5)
    assert torch.equal(parameterization.to_x0(y, x_t, schedule, torch.zeros(3)), x_t)
    assert parameterization.to_eps(y, x_t, schedule, torch.zeros(3)).isfinite().all()


def test_x0_factors_on_vp_are_snr_one_and_snr_plus_one():
    schedule, t = Linear(), torch.linspace(0.05, 1, 7, dtype=torch.float64)
    snr = schedule.snr(t)
    torch.testing.assert_close(Epsilon().x0_factor(schedule, t), snr)
    torch.testing.assert_close(X0().x0_factor(schedule, t), torch.ones_like(snr))
    torch.testing.assert_close(V().x0_factor(schedule, t), snr + 1)


def test_eps_prediction_gives_eps_back_to_the_bit():
    y, x_t = torch.randn(2, 3, 5)
    assert torch.equal(Epsilon().to_eps(y, x_t, Linear(), torch.tensor([1e-3, 0.5, 1.0])), y)


def test_eps_is_refused_where_the_snr_is_zero():
    with pytest.raises(ValueError, match="SNR is 0 at t = 1"):
        Epsilon().check(ZeroTerminal())


@every_parameterization
def test_inputs_of_an_unbounded_path_are_scaled_to_unit_variance(parameterization):
    schedule, t = Line(ve), torch.linspace(0.05, 1, 7, dtype=torch.float64)
    c_in = parameterization.input_scale(schedule, t)
    torch.testing.assert_close(c_in**2 * (1 + schedule.sigma(t) ** 2), torch.ones_like(t))
    assert (parameterization.input_scale(Line(linear), t) == 1).all()

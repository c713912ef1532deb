import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion import schedules
from diffusion.parameterizations import EDM, X0, Epsilon, Straight, V, Velocity
from diffusion.schedules import Linear, RectifiedFlow
from diffusion.schedules.path import linear, ve, vp
from tests.curves import Line, ZeroTerminal
from tests.options import options

SCHEDULES = [*options("schedule"), Line(vp), Line(ve), Line(linear), ZeroTerminal()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_parameterization = pytest.mark.parametrize("parameterization", options("parameterization"))


@every_schedule
@every_parameterization
@settings(max_examples=30, deadline=None)
@given(t=st.lists(st.floats(0.001, 1), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_round_trip(schedule, parameterization, t, seed):
    if parameterization.refusal(schedule):
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
    if parameterization.refusal(schedule):
        pytest.skip("refused")
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    y, x_t = torch.randn(2, 7, 5, dtype=torch.float64)
    x0 = parameterization.to_x0(y, x_t, schedule, t)
    eps = parameterization.to_eps(y, x_t, schedule, t)
    torch.testing.assert_close(schedule.diffuse(x0, t, eps), x_t)


@every_schedule
@every_parameterization
def test_x0_factor_turns_errors_of_x0_into_errors_of_y(schedule, parameterization):
    if parameterization.refusal(schedule):
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
    if parameterization.refusal(schedule):
        pytest.skip("refused")
    x_t, y = torch.randn(2, 3, 5)
    assert torch.equal(parameterization.to_x0(y, x_t, schedule, torch.zeros(3)), x_t)
    assert parameterization.to_eps(y, x_t, schedule, torch.zeros(3)).isfinite().all()


def test_x0_factors_on_vp_are_snr_one_and_snr_plus_one():
    schedule, t = Linear(), torch.linspace(0.05, 1, 7, dtype=torch.float64)
    snr = schedule.snr(t)
    torch.testing.assert_close(Epsilon().x0_factor(schedule, t), snr)
    torch.testing.assert_close(X0().x0_factor(schedule, t), torch.ones_like(snr))
    torch.testing.assert_close(V().x0_factor(schedule, t), snr + 1)


@every_schedule
def test_the_x0_factor_of_straight_depends_on_the_snr_alone(schedule):
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(Straight().x0_factor(schedule, t), (schedule.snr(t).sqrt() + 1) ** 2)


def test_straight_is_the_velocity_of_rectified_flow():
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    x0, eps = torch.randn(2, 7, 5, dtype=torch.float64)
    ours, known = (p.target(x0, eps, RectifiedFlow(), t) for p in (Straight(), Velocity()))
    assert torch.equal(ours, known)


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


@pytest.mark.parametrize("parameterization", [p for p in options("parameterization") if p.id != "edm"])
def test_inputs_of_a_bounded_path_are_left_alone(parameterization):
    t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    assert (parameterization.input_scale(Line(linear), t) == 1).all()


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_is_the_preconditioning_of_its_paper(sigma_data):
    """Karras et al. 2022, Table 1, at x = x_0 + s eps."""
    schedule, parameterization = schedules.EDM(), EDM(sigma_data)
    t = torch.linspace(1e-4, 1, 9, dtype=torch.float64)
    s = schedule.sigma(t)
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    c_out = s * sigma_data / (s**2 + sigma_data**2).sqrt()
    F, x = torch.randn(2, 9, 5, dtype=torch.float64)
    denoised = c_skip[:, None] * x + c_out[:, None] * F
    torch.testing.assert_close(parameterization.to_x0(F, x, schedule, t), denoised)
    torch.testing.assert_close(parameterization.label(schedule, t), s.log() / 4)
    weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
    torch.testing.assert_close(parameterization.x0_factor(schedule, t), weight)


def test_the_target_of_edm_has_unit_variance():
    for schedule in (schedules.EDM(), Line(vp), Line(linear)):
        a, b = EDM(0.5).row(schedule, torch.linspace(0.05, 1, 7, dtype=torch.float64))
        torch.testing.assert_close(a**2 * 0.5**2 + b**2, torch.ones_like(a))


def test_the_velocity_is_the_derivative_of_x_t():
    for schedule in (schedules.RectifiedFlow(), schedules.CosineFlow(), schedules.EDM()):
        x0, eps = torch.randn(2, 9, 5, dtype=torch.float64)
        t, h = torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1e-6
        numeric = (schedule.diffuse(x0, t + h, eps) - schedule.diffuse(x0, t - h, eps)) / (2 * h)
        torch.testing.assert_close(Velocity().target(x0, eps, schedule, t), numeric, rtol=1e-5, atol=1e-5)


def test_exactly_the_pairs_without_sense_are_refused():
    """So that no law above skips more than it should."""
    without_signal = {"cosine_flow", "laplace", "rectified_flow", "sigmoid", "zero_terminal"}
    with_rates = {"cosine_flow", "edm", "rectified_flow"}
    every = {option.id for option in options("schedule")}
    expected = {"eps": without_signal, "edm": without_signal, "velocity": every - with_rates, "v": set(), "x0": set(),
                "straight": set()}
    for parameterization in options("parameterization"):
        refused = {schedule.id for schedule in options("schedule")
                   if parameterization.values[0].refusal(schedule.values[0])}
        assert refused == expected[parameterization.id]


def test_pairs_that_make_no_sense_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="needs finite rates"):
        Velocity().check(Linear())
    with pytest.raises(ValueError, match="logarithm of the SNR"):
        EDM().check(schedules.RectifiedFlow())

"""Laws of every schedule in configs/schedule."""

import copy
import math
import pickle

import pytest
import torch

from diffusion import schedules
from diffusion.schedules import (
    EDM,
    ContinuousVP,
    Cosine,
    CosineFlow,
    Laplace,
    Linear,
    RectifiedFlow,
    ScaledLinear,
    Shifted,
    Sigmoid,
    Table,
    ZeroTerminal,
)
from tests.options import options

every_schedule = pytest.mark.parametrize("schedule", options("schedule"))
T = torch.linspace(0, 1, 1234, dtype=torch.float64)


@every_schedule
def test_t_of_inverts_log_snr(schedule):
    torch.testing.assert_close(schedule.t_of(schedule.log_snr(T)), T, rtol=0, atol=1e-9)


@every_schedule
def test_log_snr_inverts_t_of(schedule):
    low, high = schedule.log_snr_range
    log_snr = torch.linspace(max(low, -8), min(high, 8), 1000, dtype=torch.float64)
    inside = log_snr >= low
    torch.testing.assert_close(
        schedule.log_snr(schedule.t_of(log_snr))[inside], log_snr[inside], rtol=0, atol=1e-9
    )


@every_schedule
def test_t_of_takes_the_nearer_end_of_what_the_curve_does_not_reach(schedule):
    assert schedule.t_of(torch.inf) == 0 and 1 - 1e-12 < schedule.t_of(-torch.inf) <= 1


@every_schedule
def test_the_curve_falls_from_clean_data(schedule):
    assert (schedule.log_snr(T).diff() < 0).all()
    assert schedule.alpha(0.0) == 1 and schedule.sigma(0.0) == 0 and schedule.snr(0.0) == torch.inf


@every_schedule
def test_alpha_and_sigma_have_the_ratio_of_log_snr(schedule):
    t = T[1:-1]
    ratio = (schedule.alpha(t) / schedule.sigma(t)).square().log()
    torch.testing.assert_close(ratio, schedule.log_snr(t), rtol=0, atol=1e-9)


@every_schedule
def test_t_may_be_a_number_one_tensor_or_a_row_each(schedule):
    assert schedule.alpha(0.5).shape == () and schedule.alpha(torch.tensor(0.5)).shape == ()
    assert schedule.alpha(torch.full((3,), 0.5)).shape == (3,)
    assert schedule.alpha(torch.full((3,), 0.5)).dtype == torch.float64


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_diffuse_keeps_dtype_and_expands_over_data_axes(schedule, dtype):
    x0, eps, t = (
        torch.randn(3, 2, 4, 4, dtype=dtype),
        torch.randn(3, 2, 4, 4, dtype=dtype),
        torch.tensor([0.0, 0.3, 1.0]),
    )
    x_t = schedule.diffuse(x0, t, eps)
    assert x_t.dtype == dtype
    torch.testing.assert_close(x_t[0], x0[0])
    torch.testing.assert_close(x_t[1], schedule.diffuse(x0[1:2], t[1], eps[1:2])[0])


@every_schedule
def test_a_schedule_is_a_value(schedule):
    assert copy.deepcopy(schedule) == schedule == pickle.loads(pickle.dumps(schedule))
    assert eval(repr(schedule), vars(schedules)) == schedule


@pytest.mark.parametrize("schedule", [p for p in options("schedule") if isinstance(p.values[0], Table)])
def test_a_table_is_hit_at_its_points_and_labelled_by_its_index(schedule):
    i = torch.arange(1, schedule.T + 1, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - schedule.betas(), 0)
    torch.testing.assert_close(schedule.alpha(i / schedule.T) ** 2, alpha_bar, rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.label(i / schedule.T), i - 1)
    assert schedule.label(0.0) == 0


@pytest.mark.parametrize("schedule", [p for p in options("schedule") if isinstance(p.values[0], Table)])
def test_log_alpha_bar_is_linear_between_the_points(schedule):
    left, right = schedule.alpha(41 / schedule.T).log(), schedule.alpha(42 / schedule.T).log()
    torch.testing.assert_close(schedule.alpha(41.25 / schedule.T).log(), 0.75 * left + 0.25 * right)


def test_impossible_betas_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Linear(beta_end=1.5)


HAS_RATES = [p for p in options("schedule") if p.values[0].rates(0.5) is not None]


SHIFTED = [Shifted(RectifiedFlow(), -1.7), Shifted(CosineFlow(), 2.3), Shifted(EDM(), -1.0)]


@pytest.mark.parametrize("schedule", [*HAS_RATES, *SHIFTED])
def test_rates_are_the_derivatives_of_alpha_and_sigma(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha_rate, sigma_rate = schedule.rates(t)
    assert alpha_rate.isfinite().all() and sigma_rate.isfinite().all()
    inside, h = t[1:-1], 1e-6
    for rate, of in ((alpha_rate, schedule.alpha), (sigma_rate, schedule.sigma)):
        numeric = (of(inside + h) - of(inside - h)) / (2 * h)
        torch.testing.assert_close(rate[1:-1], numeric, rtol=1e-6, atol=1e-6)


def test_a_shift_moves_every_log_snr_and_keeps_the_label_of_a_noise_level():
    base, shifted = Cosine(), Shifted(Cosine(), -1.3863)
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(shifted.log_snr(t), base.log_snr(t) - 1.3863)
    index = shifted.label(t)  # of the base's table
    torch.testing.assert_close(base.log_snr((index + 1) / base.T), shifted.log_snr(t))


def test_labels_of_levels_beyond_the_bases_last_one_stay_apart():
    shifted, t = Shifted(ScaledLinear(), -1.3863), torch.linspace(0, 1, 1001, dtype=torch.float64)
    labels = shifted.label(t)
    assert (labels[2:].diff() > 0).all()
    assert labels.diff()[-100:].max() < 2 * labels.diff()[500:600].max()  # no jump where the base ends


@pytest.mark.parametrize("tau", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("start, end", [(-3.0, 3.0), (0.0, 3.0), (-3.0, 1.0)])
def test_sigmoid_is_its_papers_curve_for_every_tau(tau, start, end):
    schedule = Sigmoid(start, end, tau)
    s = torch.sigmoid((start + T * (end - start)) / tau)
    torch.testing.assert_close(schedule.alpha(T) ** 2, (s[-1] - s) / (s[-1] - s[0]), rtol=1e-6, atol=1e-9)
    middle = schedule.log_snr(T).abs() < 40
    torch.testing.assert_close(schedule.t_of(schedule.log_snr(T))[middle], T[middle], rtol=0, atol=1e-9)


def test_zero_terminal_is_algorithm_1_of_its_paper():
    """Lin et al. 2023: sqrt(alpha-bar) is moved to end at 0 and scaled to keep its first value."""
    base = ScaledLinear()
    root = base.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    torch.testing.assert_close(ZeroTerminal(base).alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000), expected)


@pytest.mark.parametrize("s", [0.5, 3.0])
def test_a_shifted_flow_is_that_of_stable_diffusion_3(s):
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    shifted = Shifted(RectifiedFlow(), -2 * math.log(s))
    torch.testing.assert_close(shifted.sigma(t), s * t / (1 + (s - 1) * t))


def test_zero_terminal_keeps_the_first_step_and_ends_in_pure_noise():
    base = ScaledLinear()
    zero = ZeroTerminal(base)
    assert zero.alpha(1.0) == 0 and zero.snr(1.0) == 0 and zero.sigma(1.0) == 1
    torch.testing.assert_close(zero.alpha(1 / 1000), base.alpha(1 / 1000))
    with pytest.raises(ValueError, match="last alpha is above 0"):
        ZeroTerminal(zero)


def test_continuous_vp_is_the_limit_of_linear():
    t, T = torch.linspace(0, 1, 11, dtype=torch.float64), 100_000
    fine = Linear(T=T, beta_start=0.1 / T, beta_end=20 / T)
    torch.testing.assert_close(ContinuousVP().alpha(t), fine.alpha(t), rtol=1e-3, atol=1e-6)


def test_uniform_times_give_laplace_distributed_log_snrs():
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    log_snr = Laplace(mean=0.3, b=0.7).log_snr(u)
    expected = torch.distributions.Laplace(torch.tensor(0.3).double(), torch.tensor(0.7).double()).icdf(1 - u)
    torch.testing.assert_close(log_snr, expected)

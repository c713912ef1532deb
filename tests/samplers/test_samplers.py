"""Laws of every sampler in configs/sampler."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from diffusion.discretizations import karras, log_snr, trailing, uniform
from diffusion.estimate import Estimate
from diffusion.rng import SampleNoise
from diffusion.samplers import (
    adaptive,
    ddim,
    ddpm,
    ddpm_large,
    ddpm_learned,
    deis,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    edm,
    heun,
    sde_dpmpp_2m,
    unipc,
)
from diffusion.schedules import EDM, Cosine, Linear, ScaledLinear, Table
from diffusion.schedules.path import linear, ve, vp
from tests.curves import Line, ZeroTerminal
from tests.gaussian import Gaussian
from tests.mixture import Mixture
from tests.options import options

every_sampler = pytest.mark.parametrize("sampler", options("sampler"))
of_fixed_steps = pytest.mark.parametrize("sampler", [p for p in options("sampler") if p.values[0].func is not adaptive])
every_schedule = pytest.mark.parametrize("schedule", options("schedule"))
PATHS = [Line(vp, high=5.0, low=-5.0), Line(ve, high=5.0, low=-5.0), Line(linear, high=5.0, low=-5.0)]


def last(steps):
    *_, step = steps
    return step


def response(sampler, data, ts):
    """On Gaussian data a sampler is affine: (offset, factor of its start, factors of its noises).

    Row 0 starts from 0, row 1 from 1, row k + 2 from 0 with a 1 for its k-th noise.
    """
    x = torch.zeros(len(ts) + 1, 1, dtype=torch.float64)
    x[1] = 1
    calls = iter(range(len(ts)))

    def noise(x):
        z = torch.zeros_like(x)
        z[next(calls) + 2] = 1
        return z

    end = last(sampler(data.denoise, data.schedule, x, ts, noise)).x[:, 0]
    return end[0], end[1] - end[0], end[2:] - end[0]


@every_sampler
@every_schedule
def test_any_number_of_steps_ends_in_finite_numbers(sampler, schedule):
    x, counts = torch.randn(2, 3), [1, 2, 3, 4, 10, 50, *([1000] if schedule == Linear() else [])]
    for n in counts:
        steps = list(sampler(Gaussian(schedule).denoise, schedule, x, trailing(schedule, n)))
        assert steps[-1].t == 0 and (len(steps) == n or sampler.func is adaptive)
        for step in steps:
            assert step.x.shape == step.x0.shape == x.shape and step.x.dtype == x.dtype
            assert step.x.isfinite().all() and step.x0.isfinite().all()
        assert torch.equal(steps[-1].x, steps[-1].x0)


@pytest.mark.slow
@every_sampler
@every_schedule
def test_a_thousand_steps_end_in_finite_numbers(sampler, schedule):
    step = last(sampler(Gaussian(schedule).denoise, schedule, torch.randn(2, 3), trailing(schedule, 1000)))
    assert step.x.isfinite().all() and step.t == 0


@every_sampler
@every_schedule
def test_every_admissible_parameterization_leads_to_the_same_finite_end(sampler, schedule):
    """A network that is right, in float32, whatever it predicts: nothing is lost at the ends."""
    data, x, ends = Gaussian(schedule), torch.randn(2, 3), []
    for option in options("parameterization", sigma_data=0.5):
        parameterization = option.values[0]
        if parameterization.refusal(schedule):
            continue

        def denoise(x_t, t, parameterization=parameterization):
            right = data.denoise(x_t, t)
            y = parameterization.target(right.x0, right.eps, schedule, t)
            return Estimate(parameterization.to_x0(y, x_t, schedule, t),
                            parameterization.to_eps(y, x_t, schedule, t), right.f)

        start, noise = schedule.prior(torch.tensor(1.0), x), SampleNoise([("", 0, 0), ("", 0, 1)])
        ends.append(last(sampler(denoise, schedule, start, trailing(schedule, 10), noise)).x)
    assert all(end.isfinite().all() for end in ends)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=2e-2, atol=2e-2)


@every_sampler
def test_a_start_without_any_signal_is_no_obstacle(sampler):
    schedule = ZeroTerminal()
    for n in (1, 2, 50):
        end = last(sampler(Gaussian(schedule).denoise, schedule, torch.randn(2, 3), uniform(schedule, n)))
        assert end.x.isfinite().all()


@of_fixed_steps
def test_a_picture_does_not_depend_on_its_batch(sampler):
    data, ts = Gaussian(Linear()), trailing(Linear(), 10)
    pictures = [("a", 0, 0), ("a", 0, 1), ("b", 7, 0)]

    def sample(rows):
        x = SampleNoise(rows, "start")(torch.empty(len(rows), 4))
        return last(sampler(data.denoise, data.schedule, x, ts, SampleNoise(rows))).x

    together = sample(pictures)
    for k, picture in enumerate(pictures):
        torch.testing.assert_close(sample([picture])[0], together[k])


@pytest.mark.parametrize("schedule", [*options("schedule"), *PATHS])
@pytest.mark.parametrize("n", [1, 10, 100])
def test_ddim_with_eta_one_is_ddpm(schedule, n):
    data, ts, rows = Gaussian(schedule), uniform(schedule, n), [("", 0, k) for k in range(3)]
    x = schedule.sigma(1.0) * torch.randn(len(rows), 4, dtype=torch.float64)
    ours = list(ddim(data.denoise, schedule, x, ts, SampleNoise(rows), eta=1.0))
    theirs = list(ddpm(data.denoise, schedule, x, ts, SampleNoise(rows)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-9)


ORDERS = {
    "ddim": (ddim, 1), "heun": (heun, 2),
    "dpmpp_2s": (dpmpp_2s, 2), "dpmpp_2m": (dpmpp_2m, 2), "dpmpp_3m": (dpmpp_3m, 3),
    "unipc of order 1": (partial(unipc, order=1), 2), "unipc of order 2": (partial(unipc, order=2), 3),
    "unipc of order 3": (partial(unipc, order=3), 3),
    "deis of order 2": (partial(deis, order=2), 2), "deis of order 3": (partial(deis, order=3), 3),
}
STOCHASTIC = {ddpm, ddpm_large, ddpm_learned, sde_dpmpp_2m, edm}
SMOOTH = [p.values[0] for p in options("schedule") if not isinstance(p.values[0], Table)]


def test_every_sampler_is_under_a_law_of_convergence():
    lawful = {function.func if isinstance(function, partial) else function for function, _ in ORDERS.values()}
    assert {option.values[0].func for option in options("sampler")} <= lawful | STOCHASTIC | {adaptive}


def order_of(sampler, data, n: int) -> float:
    """-log2 of the error's ratio between n and 2 n steps, from log-SNR -8 (or the schedule's end) to 4."""
    schedule, x = data.schedule, torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)[:, None]
    low, errors = max(schedule.log_snr_range[0], -8.0), []
    for steps in (n, 2 * n):
        ts = log_snr(schedule, steps + 1, log_snr_min=low, log_snr_max=4.0)[:-1]
        start = schedule.sigma(ts[0]) * x
        end = last(sampler(data.denoise, schedule, start, ts)).x
        errors.append((end - data.flow(start, ts[0], ts[-1])).square().mean().sqrt())
    return -math.log2(errors[1] / errors[0])


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("schedule", [*SMOOTH, *PATHS, Linear(), ScaledLinear(), Cosine()], ids=repr)
@pytest.mark.parametrize("data", [Gaussian, Mixture])
def test_deterministic_samplers_converge_to_the_flow_with_their_order(name, schedule, data):
    sampler, order = ORDERS[name]
    assert order_of(sampler, data(schedule), 200) > order - 0.3


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("schedule", options("schedule"))
def test_twenty_ordinary_steps_end_near_the_flow(name, schedule):
    """From wherever the schedule starts, nearly or quite without signal, on the grid that users take."""
    data, ts = Gaussian(schedule), trailing(schedule, 20)
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    end = last(ORDERS[name][0](data.denoise, schedule, schedule.prior(ts[0], eps), ts)).x
    exact = data.mu + data.tau * eps  # of a start of pure noise
    assert (end - exact).abs().max() < (3.0 if isinstance(schedule, EDM) else 0.5)


@pytest.mark.parametrize("schedule", [Linear(), *PATHS], ids=repr)
@pytest.mark.parametrize("data", [Gaussian, Mixture])
def test_the_adaptive_solver_keeps_to_its_tolerance(schedule, data):
    data, x = data(schedule), torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)[:, None]
    ts = log_snr(schedule, 3, log_snr_min=max(schedule.log_snr_range[0], -8.0), log_snr_max=4.0)[:-1]
    start = schedule.sigma(ts[0]) * x
    exact, evaluations = data.flow(start, ts[0], ts[-1]) / schedule.sigma(ts[-1]), []
    for tolerance in (1e-2, 1e-4, 1e-6):
        steps = list(adaptive(data.denoise, schedule, start, ts, tolerance=tolerance))
        error = ((steps[-1].x / schedule.sigma(ts[-1]) - exact) / (1 + exact.abs())).abs().max()
        assert error < 30 * tolerance and steps[-1].t == ts[-1]
        evaluations.append(len(steps))
    assert evaluations[0] < evaluations[1] < evaluations[2]
    with pytest.raises(RuntimeError, match="no end after"):
        list(adaptive(data.denoise, schedule, start, ts, tolerance=1e-6, most=10))


def test_the_adaptive_sampler_ends_at_a_network_that_is_not_finite():
    schedule = Cosine()
    data = Gaussian(schedule)

    def broken(x, t):
        estimate = data.denoise(x, t)
        return estimate._replace(x0=estimate.x0 * (torch.nan if schedule.log_snr(t) > 0 else 1.0))

    with pytest.raises(RuntimeError, match="x_0 is not finite"):
        last(adaptive(broken, schedule, torch.randn(2, 3), trailing(schedule, 10)))


@every_schedule
def test_eulers_method_in_sigma_over_alpha_is_ddim(schedule):
    data, ts = Gaussian(schedule), uniform(schedule, 20)[1:]
    x = torch.randn(3, 4, dtype=torch.float64)
    for (t, s), step in zip(pairwise(ts), ddim(data.denoise, schedule, x, ts), strict=True):
        ratio_t, ratio_s = (schedule.sigma(u) / schedule.alpha(u) for u in (t, s))
        x = schedule.alpha(s) * (x / schedule.alpha(t) + (ratio_s - ratio_t) * data.denoise(x, t).eps)
        torch.testing.assert_close(step.x, x)


def test_without_churn_edm_is_heun():
    data, x, ts = Gaussian(EDM()), 80 * torch.randn(3, 4, dtype=torch.float64), karras(EDM(), 18, log_snr_max=12.4)
    for a, b in zip(edm(data.denoise, EDM(), x, ts, churn=0), heun(data.denoise, EDM(), x, ts), strict=True):
        assert torch.equal(a.x, b.x)


def test_the_first_step_of_the_sde_solver_is_ddpm():
    data, x, ts = Gaussian(Cosine()), torch.randn(3, 4, dtype=torch.float64), trailing(Cosine(), 10)
    rows = [("", 0, k) for k in range(3)]
    ours = next(sde_dpmpp_2m(data.denoise, Cosine(), x, ts, SampleNoise(rows)))
    torch.testing.assert_close(ours.x, next(ddpm(data.denoise, Cosine(), x, ts, SampleNoise(rows))).x)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), *PATHS])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_marginals_are_exact_for_data_at_one_point(schedule, eta):
    """Song et al. 2021a, Lemma 1: whatever eta, x_s ~ N(alpha_s mu, sigma_s^2)."""
    data, ts = Gaussian(schedule, mu=0.7, tau=0.0), uniform(schedule, 20)[:15]
    offset, of_start, of_noise = response(lambda *args: ddim(*args, eta=eta), data, ts)
    t, s = ts[0], ts[-1]
    torch.testing.assert_close(offset + of_start * schedule.alpha(t) * 0.7, schedule.alpha(s) * 0.7)
    torch.testing.assert_close(
        (of_start * schedule.sigma(t)) ** 2 + of_noise.square().sum(), schedule.sigma(s) ** 2
    )


@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_marginals_of_ddpm_large_are_exact_for_standard_normal_data(schedule):
    """Ho et al. 2020, Section 3.2: beta is the right variance for x_0 ~ N(0, 1), at any step length."""
    data, ts = Gaussian(schedule, mu=0.0, tau=1.0), trailing(schedule, 20)[:15]
    offset, of_start, of_noise = response(ddpm_large, data, ts)
    assert offset == 0
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(of_start**2 + of_noise.square().sum(), one)


@of_fixed_steps
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_many_steps_keep_mean_and_variance(sampler, schedule):
    """For data between the two extremes every sampler is right in the limit of small steps."""
    data, errors = Gaussian(schedule, mu=0.7, tau=0.5), []
    for n in (125, 500):
        ts = log_snr(schedule, n + 1, log_snr_min=-5.5, log_snr_max=4.0)[:-1]
        offset, of_start, of_noise = response(sampler, data, ts)
        mean = offset + of_start * schedule.alpha(ts[0]) * 0.7
        variance = of_start**2 * data.variance(ts[0]) + of_noise.square().sum()
        wrong = torch.stack([mean - schedule.alpha(ts[-1]) * 0.7, variance - data.variance(ts[-1])])
        errors.append(wrong.abs().max())
    # four times the steps, a quarter of the error or less
    assert errors[1] < 0.02 and (errors[1] < errors[0] / 3 or errors[1] < 1e-6)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.inf])
def test_eta_outside_zero_to_one_is_refused(eta):
    with pytest.raises(ValueError, match="eta"):
        next(ddim(Gaussian(Linear()).denoise, Linear(), torch.randn(1, 2), trailing(Linear(), 2), eta=eta))


def test_no_noise_is_asked_for_where_none_is_added():
    def noise(x):
        raise AssertionError("noise was asked for")

    data = Gaussian(Linear())
    last(ddim(data.denoise, Linear(), torch.randn(1, 2), trailing(Linear(), 5), noise))
    for sampler in (ddpm, ddpm_large):
        last(sampler(data.denoise, Linear(), torch.randn(1, 2), trailing(Linear(), 1), noise))

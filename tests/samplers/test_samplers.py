"""Laws of every sampler in configs/sampler."""

import math

import pytest
import torch

from diffusion.discretizations import log_snr, trailing, uniform
from diffusion.rng import SampleNoise
from diffusion.samplers import ddim, ddpm, ddpm_large
from diffusion.schedules import Cosine, Linear
from diffusion.schedules.path import linear, ve, vp
from tests.curves import Line, ZeroTerminal
from tests.gaussian import Gaussian
from tests.options import options

every_sampler = pytest.mark.parametrize("sampler", options("sampler"))
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
@pytest.mark.parametrize("n", [*range(1, 51), 250, 1000])
def test_any_number_of_steps_ends_in_finite_numbers(sampler, schedule, n):
    x = torch.randn(2, 3)
    steps = list(sampler(Gaussian(schedule).denoise, schedule, x, trailing(schedule, n)))
    assert len(steps) == n and steps[-1].t == 0
    for step in steps:
        assert step.x.shape == step.x0.shape == x.shape and step.x.dtype == x.dtype
        assert step.x.isfinite().all() and step.x0.isfinite().all()
    assert torch.equal(steps[-1].x, steps[-1].x0)


@every_sampler
def test_a_start_without_any_signal_is_no_obstacle(sampler):
    schedule = ZeroTerminal()
    for n in (1, 2, 50):
        end = last(sampler(Gaussian(schedule).denoise, schedule, torch.randn(2, 3), uniform(schedule, n)))
        assert end.x.isfinite().all()


@every_sampler
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


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), *PATHS])
def test_ddim_converges_to_the_flow_with_order_one(schedule):
    data, x = Gaussian(schedule), torch.randn(16, 1, dtype=torch.float64)
    low = max(schedule.log_snr_range[0], -8.0)
    counts, errors = [32, 64, 128, 256], []
    for n in counts:
        ts = log_snr(schedule, n + 1, log_snr_min=low, log_snr_max=4.0)[:-1]  # stop at a finite log-SNR
        end = last(ddim(data.denoise, schedule, x, ts)).x
        errors.append((end - data.flow(x, ts[0], ts[-1])).square().mean().sqrt())
    logs = torch.stack([torch.tensor(counts).log(), torch.stack(errors).log()])
    slope = torch.cov(logs)[0, 1] / torch.var(logs[0])
    assert -1.15 < slope < -0.85


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


@every_sampler
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
    assert errors[1] < 0.02 and errors[1] < errors[0] / 3  # four times the steps, a quarter of the error


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

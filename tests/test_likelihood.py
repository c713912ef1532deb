"""Likelihoods against closed forms: Gaussian data and mixtures with their exact denoisers, and known levels."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Laplace, Normal, kl_divergence

from diffusion.estimate import Estimate
from diffusion.likelihood import bound, ode, pixels
from diffusion.pixels import to_float, to_uint8
from diffusion.schedules import EDM, Cosine
from diffusion.schedules.path import linear, ve, vp
from tests.curves import Line
from tests.gaussian import Gaussian
from tests.mixture import Mixture
from tests.options import options

PATHS = [pytest.param(Line(path, high=30.0, low=-30.0), id=path.name) for path in (vp, ve, linear)]
LOW, HIGH = -5.0, 12.0
REACHING = [p for p in options("schedule") if p.values[0].log_snr_range[0] <= LOW]
every_path = pytest.mark.parametrize("schedule", PATHS)
X = torch.tensor([-0.9, 0.3, 1.4], dtype=torch.float64)


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def prior_of(schedule, t):
    return Normal(double(0.0), 1.0 if schedule.path is vp else schedule.sigma(t))


def expected(term, x, n, eps, weights=None):
    """The mean of a term of the bound over n midpoints of u and over the noise, for every point of x."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    rows = torch.cartesian_prod(x, u, eps)
    weights = torch.full_like(eps, 1 / len(eps)) if weights is None else weights
    return (term(rows[:, 0], rows[:, 1], rows[:, 2]).reshape(len(x), n, len(eps)).mean(1) * weights).sum(-1)


def diffusion(data, x, low, high, n=500, eps=(-1.0, 1.0), weights=None):
    """eps = -1 and 1 give the whole expectation where the error is affine in eps."""
    return expected(lambda x0, u, eps: bound.continuous(data.denoise, data.schedule, x0, u, eps, low, high),
                    x, n, double(*eps), weights)


def total(data, x, low, high, **options):
    return (bound.prior(data.schedule, x, low) + diffusion(data, x, low, high, **options)
            + bound.reconstruction(x, high))


def closed_diffusion(data, x, low, high):
    """1/2 int E||x - x_0'||^2 dSNR, where x - x_0' = ((x - mu) - sqrt(SNR) tau^2 eps) / (1 + SNR tau^2)."""
    def integral(snr):
        q = 1 + snr * data.tau**2
        return (math.log(q) + 1 / q) / 2 - (x - data.mu) ** 2 / (2 * data.tau**2 * q)
    return integral(math.exp(high)) - integral(math.exp(low))


# The bound


@pytest.mark.parametrize("schedule", [*REACHING, *PATHS])
def test_the_diffusion_term_depends_on_the_ends_alone(schedule):
    data = Gaussian(schedule)
    torch.testing.assert_close(diffusion(data, X, LOW, HIGH), closed_diffusion(data, X, LOW, HIGH),
                               rtol=1e-4, atol=1e-4)


def test_no_schedule_is_left_out():
    assert len(REACHING) == len(options("schedule"))


@every_path
def test_the_prior_is_a_divergence(schedule):
    t = schedule.t_of(LOW)
    q = Normal(schedule.alpha(t) * X, schedule.sigma(t))
    torch.testing.assert_close(bound.prior(schedule, X, LOW), kl_divergence(q, prior_of(schedule, t)))


@every_path
def test_the_bound_of_an_exact_denoiser_is_tight(schedule):
    data = Gaussian(schedule)
    exact = -Normal(data.mu, data.tau).log_prob(X)
    torch.testing.assert_close(total(data, X, -20.0, 20.0), exact, rtol=1e-4, atol=1e-4)


@every_path
def test_the_bound_is_tight_on_a_mixture(schedule):
    data = Mixture(schedule)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    ours = total(data, X, -18.0, 18.0, n=500, eps=nodes, weights=double(*weights) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(ours, -data.log_prob(X, double(0.0)[0] + schedule.t_of(30.0)), rtol=1e-3, atol=1e-3)


@every_path
def test_a_worse_denoiser_costs_bits(schedule):
    wrong = Gaussian(schedule, mu=0.4)
    assert (total(wrong, double(0.2, 1.2), -20.0, 20.0).mean()
            > -Normal(0.7, 0.5).log_prob(double(0.2, 1.2)).mean() + 0.05)  # KL of the two is 0.18


@every_path
def test_the_discrete_bound_falls_to_the_continuous_one(schedule):
    data, one_std = Gaussian(schedule), double(0.2, 1.2)  # their mean is the data's

    def gap(steps):
        sums = expected(lambda x0, u, eps: bound.discrete(data.denoise, schedule, x0, u, eps, LOW, HIGH, steps=steps),
                        one_std, steps, double(-1, 1))
        return (sums - closed_diffusion(data, one_std, LOW, HIGH)).mean().item()

    gaps = [gap(steps) for steps in (16, 32, 64, 128, 256)]
    assert all(more > fewer > 0 for more, fewer in itertools.pairwise(gaps))
    assert gaps[-2] / gaps[-1] == pytest.approx(2, rel=0.05)


# The ODE


def density(data, x, low, high, steps, probes=None):
    return ode.log_density(data.denoise, data.schedule, x, ode.exact(x) if probes is None else probes, low, high,
                           steps=steps)


def closed_density(data, x, low, high):
    """The exact flow from the prior; the ODE's own error is left."""
    schedule = data.schedule
    t, s = schedule.t_of(low), schedule.t_of(high)
    end = data.flow(schedule.alpha(s) * x, s, t)
    slope = schedule.alpha(s) * (data.variance(t) / data.variance(s)).sqrt()
    return (prior_of(schedule, t).log_prob(end) + slope.log()).sum(-1)


TWO = torch.stack([X, X.flip(0) / 2], 1)


@pytest.mark.parametrize("schedule", [*REACHING, *PATHS])
def test_the_density_follows_the_exact_flow(schedule):
    data = Gaussian(schedule)
    torch.testing.assert_close(density(data, TWO, -5.0, 5.0, 12), closed_density(data, TWO, -5.0, 5.0),
                               rtol=1e-3, atol=1e-3)


@every_path
def test_the_density_of_a_mixture(schedule):
    data, x = Mixture(schedule), X[:, None]
    t = schedule.t_of(8.0)  # of x_t / alpha, the data with noise e^-4
    exact = data.log_prob(schedule.alpha(t) * X, t) + schedule.alpha(t).log()
    torch.testing.assert_close(density(data, x, -16.0, 8.0, 30), exact, rtol=1e-3, atol=1e-3)


def test_the_ode_is_solved_with_order_four():
    data = Gaussian(EDM())
    more, fewer = ((density(data, TWO, -3.0, 4.0, n) - closed_density(data, TWO, -3.0, 4.0)).abs().max().item()
                   for n in (16, 32))
    assert more / fewer == pytest.approx(2**4, rel=0.15)


MATRIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def traces(matrix, probes):
    x = torch.zeros(1, len(matrix), dtype=torch.float64)
    return ode.trace(lambda x: x @ matrix.T, x, probes)[1].item()


def test_the_exact_probes_give_the_trace():
    assert traces(MATRIX, ode.exact(torch.zeros(1, 4, dtype=torch.float64))) == pytest.approx(MATRIX.trace().item())


def test_rademacher_probes_are_unbiased_and_exact_on_a_diagonal():
    signs = torch.cartesian_prod(*[double(-1.0, 1.0)] * 4)[:, None]  # all that there are
    assert traces(MATRIX, signs) == pytest.approx(MATRIX.trace().item())
    assert traces(MATRIX, signs[:1]) != pytest.approx(MATRIX.trace().item(), rel=1e-3)
    assert traces(MATRIX.diag().diag(), signs[5:6]) == pytest.approx(MATRIX.trace().item())


def test_probes_have_unit_covariance():
    p = ode.rademacher(torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    torch.testing.assert_close(p.T @ p / len(p), torch.eye(3, dtype=torch.float64), rtol=0, atol=0.05)


def test_one_rademacher_probe_is_enough_for_independent_dimensions():
    data, probe = Gaussian(Cosine()), torch.ones_like(TWO)[None]
    probe[..., 1] = -1
    torch.testing.assert_close(density(data, TWO, LOW, HIGH, 6, probe), density(data, TWO, LOW, HIGH, 6))


# Levels


LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("high", [3.0, 9.7, 13.3])
def test_the_probabilities_of_the_levels_given_noise_sum_to_one(high):
    noisy = 0.337
    nats = pixels.levels(LEVELS, (noisy - LEVELS) * math.exp(high / 2), high)
    assert nats.neg().exp().sum() == pytest.approx(1)


def test_little_noise_tells_the_level_and_much_noise_tells_nothing():
    eps = torch.linspace(-2, 2, 256, dtype=torch.float64)
    assert pixels.levels(LEVELS, eps, 20.0).max() < 1e-3
    nothing = torch.full_like(eps, math.log(256))
    torch.testing.assert_close(pixels.levels(LEVELS, eps, -20.0), nothing, rtol=0, atol=1e-3)


@pytest.mark.parametrize("share", [torch.ones(256), torch.arange(256) + 1.0], ids=["uniform", "ramp"])
@every_path
def test_the_bound_finds_the_probability_of_each_level(schedule, share):
    """Uniform 8-bit pixels are 8 bits; the exact denoiser knows the distribution of the levels."""
    share = (share / share.sum()).double()

    def denoise(x_t, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x0 = (share.log() - ((x_t[:, None] - alpha * LEVELS) / sigma) ** 2 / 2).softmax(-1) @ LEVELS
        return Estimate(x0, (x_t - schedule.alpha(t) * x0) / schedule.sigma(t))

    def nats(x0, u, eps):
        return (bound.continuous(denoise, schedule, x0, u, eps, -14.0, 13.3) + bound.prior(schedule, x0, -14.0)
                + pixels.levels(x0, eps, 13.3))

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    chosen = torch.tensor([3, 128, 255])
    nats = expected(nats, LEVELS[chosen], 150, double(*nodes), double(*weights) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(pixels.bits_per_dim(nats, 1), -share[chosen].log2(), rtol=0, atol=0.02)


@pytest.mark.parametrize("b", [1e-3, 0.02, 0.5, 50.0])
@pytest.mark.parametrize("mean", [0.1, LEVELS[40].item(), -1.3, 1.0])
def test_the_laplace_distribution_fills_its_bins(b, mean):
    nats = pixels.laplace(LEVELS, torch.full_like(LEVELS, mean), b)
    cdf = Laplace(double(mean), double(b)).cdf((LEVELS[:-1] + LEVELS[1:]) / 2)
    bins = torch.diff(cdf, prepend=double(0.0), append=double(1.0))
    torch.testing.assert_close(nats.neg().exp(), bins, rtol=1e-6, atol=1e-12)
    assert nats.isfinite().all() and nats.neg().exp().sum() == pytest.approx(1)


def test_dequantised_pixels_stay_in_their_bins():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for u in (0.001, 0.5, 0.999):
        x = pixels.dequantised(to_float(images), torch.full(images.shape, u))
        assert torch.equal(to_uint8(x), images)


def test_a_uniform_density_over_all_bins_is_eight_bits():
    low, high = pixels.dequantised(LEVELS[[0, 255]], double(0.0, 1.0))
    nats = (high - low).log() - math.log(pixels.WIDTH)
    assert pixels.bits_per_dim(nats[None], 1).item() == pytest.approx(8)

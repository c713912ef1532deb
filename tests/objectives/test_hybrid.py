import pytest
import torch
from torch import nn

from diffusion.denoiser import Denoiser
from diffusion.objectives import Hybrid, diffusion_loss
from diffusion.objectives.hybrid import variance_bound
from diffusion.parameterizations import V
from diffusion.samplers import ddpm, ddpm_large, ddpm_learned
from diffusion.schedules import EDM, Cosine, Linear, RectifiedFlow
from tests.gaussian import Gaussian

SCHEDULES = pytest.mark.parametrize("schedule", [Linear(), Cosine(), RectifiedFlow(), EDM()], ids=str)
T, TIMES = 1000, torch.tensor([0.003, 0.02, 0.2, 0.5, 0.8, 0.999], dtype=torch.float64)
DRAW = torch.Generator().manual_seed(0)
ERROR, F = torch.rand(2, 6, 3, 4, 4, dtype=torch.float64, generator=DRAW)


class TwoHeaded(nn.Module):
    def __init__(self):
        super().__init__()
        self.y, self.f = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x, label, cond):
        return torch.cat([self.y(x), self.f(x)], 1)


def denoiser():
    torch.manual_seed(0)
    return Denoiser(TwoHeaded(), Cosine(), V())


def batch():
    x0, eps = torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return x0, TIMES, eps


@SCHEDULES
def test_the_bound_is_the_divergence_of_the_two_gaussians(schedule):
    """Of N(mean, beta-tilde) from N(mean', the learned variance), by torch.distributions."""
    t, s = TIMES.view(-1, 1, 1, 1), (TIMES - 1 / T).view(-1, 1, 1, 1)
    r = (schedule.log_snr(t) - schedule.log_snr(s)).exp()
    small, large = schedule.sigma(s) ** 2 * (1 - r), schedule.sigma(t) ** 2 * (1 - r)
    q = torch.distributions.Normal(schedule.alpha(s) * (1 - r) * ERROR.sqrt(), small.sqrt().expand_as(ERROR))
    p = torch.distributions.Normal(torch.zeros_like(F), ((1 - F) * small.log() + F * large.log()).mul(0.5).exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).mean(1)
    torch.testing.assert_close(variance_bound(schedule, ERROR, F, TIMES, T), expected, rtol=1e-6, atol=1e-12)


@SCHEDULES
def test_the_bound_is_least_at_the_variance_of_gaussian_data(schedule):
    """E[(x_0 - x_0')^2] = Var[x_0 | x_t] makes Var[x_s | x_t] the best variance."""
    data = Gaussian(schedule)
    t, s = TIMES[1:5], TIMES[1:5] - 1 / T
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    left = data.tau**2 * sigma**2 / data.variance(t)  # Var[x_0 | x_t]
    r = (schedule.log_snr(t) - schedule.log_snr(s)).exp()
    wanted = schedule.sigma(s) ** 2 * (1 - r) + (schedule.alpha(s) * (1 - r)) ** 2 * left
    best = (wanted / (schedule.sigma(s) ** 2 * (1 - r))).log() / (2 * (sigma / schedule.sigma(s)).log())
    f = best.view(-1, 1).clone().requires_grad_()
    variance_bound(schedule, left.view(-1, 1), f, t, T).sum().backward()
    assert f.grad.abs().max() < 1e-6 * (alpha / sigma).square().max().clamp(min=1)


def test_terms_that_end_at_the_data_are_left_out():
    t = torch.tensor([1e-6, 0.5, 1, 1.4], dtype=torch.float64) / T
    assert (variance_bound(Cosine(), ERROR[:4], F[:4], t, T) == 0).all()


def test_the_mean_learns_from_the_simple_loss_alone():
    ours, plain = denoiser(), denoiser()
    Hybrid()(ours, *batch()).sum().backward()
    diffusion_loss(plain, *batch()).sum().backward()
    torch.testing.assert_close(ours.network.y.weight.grad, plain.network.y.weight.grad)
    assert ours.network.f.weight.grad.abs().sum() > 0 and (plain.network.f.weight.grad == 0).all()


def test_weight_zero_is_the_simple_loss():
    torch.testing.assert_close(Hybrid(weight=0.0)(denoiser(), *batch()), diffusion_loss(denoiser(), *batch()))


@pytest.mark.parametrize(("f", "same"), [(0.0, ddpm), (1.0, ddpm_large)])
@SCHEDULES
def test_the_ends_of_f_are_the_fixed_variances(schedule, f, same):
    data, ts = Gaussian(schedule), torch.linspace(0.9, 0.1, 6, dtype=torch.float64)

    def end(sampler):
        draw = torch.Generator().manual_seed(0)
        *_, step = sampler(lambda x, t: data.denoise(x, t)._replace(f=torch.full_like(x, f)), schedule,
                           torch.ones(3, 2, dtype=torch.float64), ts,
                           lambda x: torch.randn(x.shape, dtype=x.dtype, generator=draw))
        return step.x

    torch.testing.assert_close(end(ddpm_learned), end(same))


def test_a_model_that_tells_no_variance_is_refused():
    with pytest.raises(ValueError, match="objective=hybrid"):
        next(ddpm_learned(lambda x, t: Gaussian(Linear()).denoise(x, t)._replace(f=None), Linear(), torch.ones(1, 1),
                          torch.tensor([0.9, 0.5], dtype=torch.float64)))

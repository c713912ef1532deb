"""The paper's losses, written out, on a linear network."""

import pytest
import torch
from torch import nn

from diffusion.denoiser import Denoiser
from diffusion.objectives import diffusion_loss
from diffusion.parameterizations import X0, Epsilon, V
from diffusion.schedules import Linear
from diffusion.weightings import min_snr
from tests.curves import Line
from tests.options import options


class LinearNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x, label, cond):
        return self.mix(x) + label[:, None] / 1000


def denoiser(parameterization, schedule=None):
    torch.manual_seed(0)
    return Denoiser(LinearNetwork(), schedule or Linear(), parameterization)


X_0, EPS = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
TIMES = torch.arange(1, 9, dtype=torch.float64) / 10


def x_t():
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[
        (TIMES * 1000).round().long() - 1
    ]
    alpha, sigma = alpha_bar.sqrt().float()[:, None], (1 - alpha_bar).sqrt().float()[:, None]
    return alpha, sigma, alpha * X_0 + sigma * EPS


def network_output(model):
    return model.network(x_t()[2], (TIMES * 1000 - 1).float(), None)


def test_eps_gives_l_simple():
    """Ho et al. 2020, Eq. 14."""
    model = denoiser(Epsilon())
    expected = (EPS - network_output(model)).square().mean(1)
    torch.testing.assert_close(diffusion_loss(model, X_0, TIMES, EPS), expected)


def test_v_gives_the_v_loss():
    """Salimans & Ho 2022, Section 4."""
    model = denoiser(V())
    alpha, sigma, _ = x_t()
    expected = (alpha * EPS - sigma * X_0 - network_output(model)).square().mean(1)
    torch.testing.assert_close(diffusion_loss(model, X_0, TIMES, EPS), expected)


def test_x0_gives_the_error_of_the_data():
    model = denoiser(X0())
    expected = (X_0 - network_output(model)).square().mean(1)
    torch.testing.assert_close(diffusion_loss(model, X_0, TIMES, EPS), expected)


@pytest.mark.parametrize("parameterization", options("parameterization"))
@pytest.mark.parametrize("schedule", [*options("schedule"), Line(Linear().path)])
@pytest.mark.parametrize("weighting", options("weighting"))
def test_a_weighting_weighs_the_error_of_x0(schedule, parameterization, weighting):
    if parameterization.refusal(schedule):
        pytest.skip("refused")
    model, x0, eps = denoiser(parameterization, schedule).double(), X_0.double(), EPS.double()
    of_x0 = (model(schedule.diffuse(x0, TIMES, eps), TIMES).x0 - x0).square().mean(1)
    w = (
        parameterization.x0_factor(schedule, TIMES)
        if weighting is None
        else weighting(schedule.log_snr(TIMES))
    )
    loss = diffusion_loss(model, x0, TIMES, eps, weighting=weighting)
    torch.testing.assert_close(loss, w * of_x0, rtol=1e-6, atol=1e-9)
    # and so the gradient, too
    for ours, theirs in zip(*(torch.autograd.grad(total.sum(), list(model.parameters()), retain_graph=True)
                              for total in (loss, w * of_x0)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


FORMULAS = {  # of the SNR, on the error of x_0
    "min_snr": lambda snr: torch.minimum(snr, torch.full_like(snr, 5.0)),
    "soft_min_snr": lambda snr: 4 * snr / (snr + 4),
    "p2": lambda snr: snr / (1 + snr),
    "truncated_snr": lambda snr: torch.maximum(snr, torch.ones_like(snr)),
    "sigmoid": lambda snr: snr * torch.sigmoid(2 - snr.log()),
}


@pytest.mark.parametrize("weighting", [option for option in options("weighting") if option.id != "none"])
def test_weightings_are_their_papers_formulas(weighting, request):
    snr = torch.logspace(-4, 4, 33, dtype=torch.float64)
    name = request.node.callspec.id
    torch.testing.assert_close(weighting(snr.log()), FORMULAS[name](snr))


def test_min_snr_weighs_eps_and_v_as_its_paper_says():
    """Hang et al. 2023: min(SNR, gamma) / SNR on eps, min(SNR, gamma) / (SNR + 1) on v."""
    snr = Linear().snr(TIMES)
    for parameterization, denominator in [(Epsilon(), snr), (V(), snr + 1), (X0(), torch.ones_like(snr))]:
        model = denoiser(parameterization)
        ratio = diffusion_loss(model, X_0, TIMES, EPS, weighting=min_snr) / diffusion_loss(
            model, X_0, TIMES, EPS
        )
        torch.testing.assert_close(ratio, (snr.clamp(max=5) / denominator).float())


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4, 4), (2, 1, 2, 3, 4)])
def test_one_float32_number_per_sample_with_a_gradient(shape):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x, label, cond):
            return self.factor * x

    model = Denoiser(Scale(), Linear(), V())
    model.compute_dtype = torch.bfloat16
    loss = diffusion_loss(
        model, torch.randn(shape), torch.tensor([0.2, 0.7]), torch.randn(shape), weighting=min_snr
    )
    assert loss.shape == (2,) and loss.dtype == torch.float32
    loss.sum().backward()
    assert model.network.factor.grad.isfinite()

import math

import pytest
import torch

from diffusion.denoiser import Denoiser
from diffusion.guidance import autoguidance
from diffusion.guidance.autoguidance import same_noise
from diffusion.parameterizations import X0, V
from diffusion.samplers import ddim
from diffusion.schedules import EDM, Cosine, CosineFlow, Linear, RectifiedFlow
from diffusion.schedules.path import linear, ve, vp
from tests.affine import COND, NULL, Moved, T, X
from tests.curves import Line
from tests.gaussian import Gaussian
from tests.options import options

SCALES = [0.0, 2.0, 5.0]


def model(seed=0, schedule=None, parameterization=None):
    return Denoiser(Moved(seed), schedule or CosineFlow(), parameterization or V()).double()


@pytest.mark.parametrize("scale", SCALES)
def test_guided_by_itself_the_model_is_itself(scale):
    got, plain = autoguidance(model(), COND, NULL, scale, model())(X.double(), T), model()(X.double(), T, COND)
    torch.testing.assert_close(got.x0, plain.x0)
    torch.testing.assert_close(got.eps, plain.eps)


@pytest.mark.parametrize("scale", SCALES)
def test_it_goes_on_from_the_guide_past_the_model(scale):
    got = autoguidance(model(), COND, NULL, scale, model(1))(X.double(), T)
    for at, good, bad in zip(got[:2], model()(X.double(), T, COND), model(1)(X.double(), T, COND), strict=False):
        torch.testing.assert_close(at, good + (scale - 1) * (good - bad))


@pytest.mark.parametrize("here", [*options("schedule"), *(Line(path, 5.0, -5.0) for path in (vp, ve, linear))])
@pytest.mark.parametrize("there", [CosineFlow(), RectifiedFlow()])
@pytest.mark.parametrize("t", [1.0, 0.6, 1e-3])
def test_a_guide_of_another_schedule_sees_the_same_noise_on_the_same_picture(here, there, t):
    t, x0, eps = torch.tensor(t, dtype=torch.float64), X.double(), X.double().flip(0)
    seen, u = same_noise(here.diffuse(x0, t, eps), t, here, there)
    torch.testing.assert_close(seen, there.diffuse(x0, u, eps), rtol=1e-5, atol=1e-6)
    if here.log_snr(t).isfinite():
        torch.testing.assert_close(there.log_snr(u), here.log_snr(t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_the_guided_flow_of_gaussian_data_is_known(scale):
    """Model and guide know N(mu, tau^2) with different mu: x_0 moves by w (mu_1 - mu_0) sigma^2 / var, so that guidance
    acts as a model of mean mu_0 + w (mu_1 - mu_0) - also with a guide of another path and parameterization."""

    class Exact(torch.nn.Module):
        """x_0 of Gaussian data, for a network that is told x and 1000 t."""

        def __init__(self, data):
            super().__init__()
            self.data = data

        def forward(self, x, label, cond):
            return self.data.denoise(x, label[0].double() / 1000).x0

    good, bad = (Denoiser(Exact(Gaussian(schedule, mu=mu)), schedule, X0())
                 for schedule, mu in ((CosineFlow(), 0.7), (RectifiedFlow(), 0.2)))
    ts = torch.linspace(0.9, 0.1, 20, dtype=torch.float64)
    *_, guided = ddim(autoguidance(good, None, None, scale, bad), CosineFlow(), X.double(), ts)
    *_, alone = ddim(Gaussian(CosineFlow(), mu=0.2 + scale * 0.5).denoise, CosineFlow(), X.double(), ts)
    torch.testing.assert_close(guided.x, alone.x, rtol=1e-4, atol=1e-4)


def test_a_guide_that_never_saw_such_noise_is_refused():
    with pytest.raises(ValueError, match="cannot follow"):
        autoguidance(model(), COND, NULL, 2.0, model(1, Linear()))
    with pytest.raises(ValueError, match="cannot follow"):
        autoguidance(model(0, Cosine()), COND, NULL, 2.0, model(1, EDM()))
    autoguidance(model(0, Linear()), COND, NULL, 2.0, model(1))


def test_the_guide_computes_as_the_model_does():
    guide, denoiser = model(1), model()
    denoiser.compute_dtype = torch.bfloat16
    autoguidance(denoiser, COND, NULL, 2.0, guide)
    assert guide.compute_dtype == torch.bfloat16


def test_at_scale_one_the_guide_is_not_asked():
    guide = model(1)
    autoguidance(model(), COND, NULL, 1.0, guide)(X.double(), T)
    assert guide.network.rows == [] and math.isinf(CosineFlow().log_snr_range[0])

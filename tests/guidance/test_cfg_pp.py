import pytest
import torch

from diffusion.denoiser import Denoiser
from diffusion.guidance import cfg_pp, classifier_free
from diffusion.parameterizations import Epsilon
from diffusion.samplers import ddim
from diffusion.schedules import Linear
from tests.affine import COND, NULL, Moved, T, X


@pytest.fixture
def denoiser():
    return Denoiser(Moved(), Linear(), Epsilon()).double()


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_ddim_with_it_is_algorithm_2_of_the_paper(denoiser, scale):
    """Written out for a network that predicts eps, with alpha-bar:
    x = sqrt(a_s) (x - sqrt(1 - a_t) eps^lambda) / sqrt(a_t) + sqrt(1 - a_s) eps(null)."""
    x, ts = X.double(), torch.linspace(1, 0, 8, dtype=torch.float64)
    steps = ddim(cfg_pp(denoiser, COND, NULL, scale), Linear(), x, ts)
    for t, s, step in zip(ts, ts[1:], steps, strict=False):
        a_t, a_s = Linear().alpha(t) ** 2, Linear().alpha(s) ** 2
        eps_c, eps_null = denoiser.predict(x, t, COND), denoiser.predict(x, t, NULL.expand(4))
        eps = eps_null + scale * (eps_c - eps_null)
        x = a_s.sqrt() * (x - (1 - a_t).sqrt() * eps) / a_t.sqrt() + (1 - a_s).sqrt() * eps_null
        torch.testing.assert_close(step.x, x)


def test_a_step_is_classifier_free_guidance_of_a_scale_that_changes_with_the_step(denoiser):
    """Over the step without a caption, x_s gains d = x_0(c) - x_0(null), times lambda alpha_s here and times
    w (alpha_s - sigma_s alpha_t / sigma_t) there."""
    t, s, scale = T, T / 2, 0.6
    alpha_t, sigma_t, alpha_s, sigma_s = (f(u) for u in (t, s) for f in (Linear().alpha, Linear().sigma))
    w = scale * alpha_s / (alpha_s - sigma_s * alpha_t / sigma_t)
    ours = next(ddim(cfg_pp(denoiser, COND, NULL, scale), Linear(), X.double(), torch.stack([t, s])))
    theirs = next(ddim(classifier_free(denoiser, COND, NULL, w.item()), Linear(), X.double(), torch.stack([t, s])))
    torch.testing.assert_close(ours.x, theirs.x)


def test_at_one_x0_is_the_captions_and_eps_is_not(denoiser):
    x0, eps, _ = cfg_pp(denoiser, COND, NULL, 1.0)(X.double(), T)
    told, untold = denoiser(X.double(), T, COND), denoiser(X.double(), T, NULL.expand(4))
    torch.testing.assert_close(x0, told.x0)
    assert torch.equal(eps, untold.eps) and not torch.allclose(eps, told.eps)


@pytest.mark.parametrize("scale", [-0.1, 1.1, 7.5])
def test_a_scale_that_extrapolates_is_refused(denoiser, scale):
    with pytest.raises(ValueError, match="between 0"):
        cfg_pp(denoiser, COND, NULL, scale)

"""Laws of every guidance in configs/guidance."""

import functools

import pytest
import torch

from diffusion.denoiser import Denoiser
from diffusion.estimate import Estimate
from diffusion.guidance import cfg_pp
from diffusion.latent import Sampling
from diffusion.parameterizations import V
from diffusion.samplers import ddim
from diffusion.schedules import CosineFlow
from tests.affine import COND, NULL, Moved, T, X, caption
from tests.options import options


def ready(guidance, seed: int = 1):
    """The configured guidance; a guide is another network."""
    if "guide" in guidance.keywords:
        return functools.partial(guidance, guide=Denoiser(Moved(seed), CosineFlow(), V()).double())
    return guidance


@pytest.fixture(params=options("guidance"))
def guidance(request):
    return ready(request.param)


@pytest.fixture
def denoiser():
    return Denoiser(Moved(), CosineFlow(), V()).double()


def test_the_neutral_scale_is_no_guidance(guidance, denoiser):
    """1; for CFG++, 0: sampling without the caption."""
    neutral, told = (0.0, NULL.expand(4)) if guidance.func is cfg_pp else (1.0, COND)
    got, plain = guidance(denoiser, COND, NULL, scale=neutral)(X.double(), T), denoiser(X.double(), T, told)
    assert torch.equal(got.x0, plain.x0) and torch.equal(got.eps, plain.eps)


def test_another_scale_is_not(guidance, denoiser):
    got = guidance(denoiser, COND, NULL, scale=0.5)(X.double(), T)
    assert not torch.allclose(got.x0, denoiser(X.double(), T, COND).x0, atol=1e-2)


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_x0_and_eps_agree_with_x_t_unless_it_is_cfg_pp(guidance, denoiser, scale):
    if guidance.func is cfg_pp:
        pytest.skip("eps from another branch")
    x0, eps, _ = guidance(denoiser, COND, NULL, scale=scale)(X.double(), T)
    torch.testing.assert_close(denoiser.schedule.diffuse(x0, T, eps), X.double())


def test_a_row_does_not_depend_on_its_batch(guidance, denoiser):
    x, times = X.double(), [T, T / 2]

    def sampled(rows):
        denoise = guidance(denoiser, COND[rows], NULL, scale=0.8)
        return torch.stack([denoise(x[rows], t).x0 for t in times], 1)

    together = sampled(slice(0, 4))
    for k in range(4):
        torch.testing.assert_close(sampled(slice(k, k + 1))[0], together[k])


def test_nothing_of_one_sampling_reaches_the_next(guidance, denoiser):
    schedule, ts = denoiser.schedule, torch.linspace(1, 0, 6, dtype=torch.float64)

    def sampled(cond):
        *_, last = ddim(guidance(denoiser, cond, NULL), schedule, X.double(), ts)
        return last.x

    first = sampled(COND)
    sampled(caption(4, 9))
    assert torch.equal(sampled(COND), first)


def test_a_learned_variance_is_that_of_the_caption(guidance):
    class Twice(Moved):
        def forward(self, x, label, cond):
            y = super().forward(x, label, cond)
            return torch.cat([y, 0.1 * y], 1)

    denoiser = Denoiser(Twice(), CosineFlow(), V()).double()
    plain, one = denoiser(X.double(), T, COND), Denoiser(Moved(), CosineFlow(), V()).double()
    guided, same = (guidance(model, COND, NULL, scale=0.6)(X.double(), T) for model in (denoiser, one))
    assert torch.equal(guided.f, plain.f)
    torch.testing.assert_close(guided.x0, same.x0)


def test_a_model_without_captions_can_be_guided_by_another_model_only(guidance, denoiser):
    got, plain = guidance(denoiser, None, None, scale=0.5)(X.double(), T), denoiser(X.double(), T)
    assert torch.equal(got.x0, plain.x0) != ("guide" in guidance.keywords)


@pytest.mark.parametrize("sampler", options("sampler"))
def test_cfg_pp_takes_the_samplers_that_step_from_the_estimate_alone(sampler):
    """From a wrong x_t, with the estimate of a right one: only what uses both x_0 and eps, and not x_t, still gives
    alpha_s x_0 + sigma_s eps."""
    schedule, ts = CosineFlow(), torch.tensor([0.6, 0.5, 0.4], dtype=torch.float64)
    x0, eps = X.double(), X.double().flip(0)
    estimate = Estimate(x0, eps, torch.zeros_like(x0))
    options = {"eta": 0.0} if sampler.func is ddim else {"churn": 0.0} if "churn" in sampler.keywords else {}
    step = next(sampler(lambda x, t: estimate, schedule, 9 * X.double(), ts, torch.zeros_like, **options))
    alone = torch.allclose(step.x, schedule.diffuse(x0, step.t, eps))
    guidance = functools.partial(cfg_pp, scale=0.6)
    if alone:
        assert Sampling(sampler=sampler, guidance=guidance).sampler is sampler
    else:
        with pytest.raises(ValueError, match=rf"{sampler.func.__name__} does not step .* take sampler=ddim"):
            Sampling(sampler=sampler, guidance=guidance)

import math

import pytest
import torch

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.guidance import classifier_free
from diffusion.schedules import CosineFlow, Linear
from tests.affine import COND, NULL, Moved, T, X, caption
from tests.options import options


@pytest.fixture(params=options("parameterization"))
def denoiser(request):
    schedule = CosineFlow() if request.param.refusal(Linear()) else Linear()
    return Denoiser(Moved(), schedule, request.param)


def rows(denoiser, denoise):
    denoiser.network.rows.clear()
    denoise(X, T)
    return denoiser.network.rows


def test_scale_one_is_no_guidance(denoiser):
    denoise = classifier_free(denoiser, COND, NULL, 1.0)
    for guided, plain in zip(denoise(X, T)[:2], denoiser(X, T, COND)[:2], strict=True):
        assert torch.equal(guided, plain)
    assert rows(denoiser, denoise) == [4]


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
def test_guidance_extrapolates_from_null_to_caption(denoiser, scale):
    guided = classifier_free(denoiser, COND, NULL, scale)(X, T)
    with_caption, without = denoiser(X, T, COND), denoiser(X, T, NULL.expand(4))
    for at, c, n in zip(guided[:2], with_caption[:2], without[:2], strict=True):
        torch.testing.assert_close(at, n + scale * (c - n), rtol=1e-4, atol=1e-4)


def test_a_guided_step_is_one_doubled_batch(denoiser):
    assert rows(denoiser, classifier_free(denoiser, COND, NULL, 3.0)) == [8]


def test_a_negative_prompt_may_differ_by_row(denoiser):
    negative = caption(4, 5)
    together = classifier_free(denoiser, COND, negative, 3.0)(X, T).x0
    for k in range(4):
        alone = classifier_free(denoiser, COND[k : k + 1], negative[k : k + 1], 3.0)(X[k : k + 1], T).x0
        torch.testing.assert_close(alone[0], together[k])


def around(denoiser, below, above):
    """An interval of log-SNRs, told as distances from that of T."""
    log_snr = float(denoiser.schedule.log_snr(T))
    return log_snr + below, log_snr + above


@pytest.mark.parametrize("wrong", [{"interval": (5.0, -5.0)}, {"interval": (5.0,)}, {"rescale": -0.5}, {"rescale": 2.}])
def test_what_would_be_no_guidance_or_another_is_refused(denoiser, wrong):
    with pytest.raises(ValueError, match=f"guidance.{next(iter(wrong))} = "):
        classifier_free(denoiser, COND, NULL, 3.0, **wrong)


@pytest.mark.parametrize("ends", [(0, math.inf), (-math.inf, 0), (0, 0)])
def test_the_interval_contains_its_ends(denoiser, ends):
    inside = classifier_free(denoiser, COND, NULL, 3.0, around(denoiser, *ends))(X, T)
    assert torch.equal(inside.x0, classifier_free(denoiser, COND, NULL, 3.0)(X, T).x0)


@pytest.mark.parametrize("ends", [(1e-6, math.inf), (-math.inf, -1e-6)])
def test_outside_the_interval_there_is_no_guidance_and_no_cost(denoiser, ends):
    denoise = classifier_free(denoiser, COND, NULL, 3.0, around(denoiser, *ends))
    assert torch.equal(denoise(X, T).x0, denoiser(X, T, COND).x0)
    assert rows(denoiser, denoise) == [4]


def output(denoiser, estimate):
    return denoiser.parameterization.target(estimate.x0, estimate.eps, denoiser.schedule, T)


def test_full_rescale_gives_the_output_the_deviation_of_the_conditional_one(denoiser):
    guided = output(denoiser, classifier_free(denoiser, COND, NULL, 7.5, rescale=1.0)(X, T))
    plain = output(denoiser, denoiser(X, T, COND))
    torch.testing.assert_close(guided.std(1), plain.std(1), rtol=1e-4, atol=1e-4)


def test_rescale_is_linear_between_off_and_full(denoiser):
    off, half, full = (
        classifier_free(denoiser, COND, NULL, 7.5, rescale=r)(X, T).x0 for r in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (off + full) / 2, rtol=1e-4, atol=1e-4)


def test_conditionings_of_different_kinds_are_refused(denoiser):
    with pytest.raises(ValueError, match="one of the two"):
        classifier_free(denoiser, COND, Conditioning(tokens=torch.zeros(1, 3, 6)), 3.0)

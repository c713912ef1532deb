import math

import pytest
import torch

from diffusion.denoiser import Denoiser
from diffusion.guidance import apg, classifier_free
from diffusion.schedules import CosineFlow, Linear
from tests.affine import COND, NULL, Moved, T, X
from tests.options import options

OFF = {"eta": 1.0, "norm_threshold": math.inf, "momentum": 0.0}


@pytest.fixture(params=options("parameterization"))
def denoiser(request):
    schedule = CosineFlow() if request.param.refusal(Linear()) else Linear()
    return Denoiser(Moved(), schedule, request.param).double()


def told(denoiser, t=T):
    return denoiser(X.double(), t, COND).x0


def difference(denoiser, t=T):
    return told(denoiser, t) - denoiser(X.double(), t, NULL.expand(4)).x0


def update(denoiser, **options):
    """What guidance of scale 2 adds to the conditional prediction."""
    return apg(denoiser, COND, NULL, 2.0, **{**OFF, **options})(X.double(), T).x0 - told(denoiser)


def dot(a, b):
    return (a * b).sum(1)


@pytest.mark.parametrize("scale", [0.0, 3.0, 7.5])
def test_with_all_parts_off_it_is_classifier_free_guidance(denoiser, scale):
    ours = apg(denoiser, COND, NULL, scale, **OFF)(X.double(), T)
    theirs = classifier_free(denoiser, COND, NULL, scale)(X.double(), T)
    torch.testing.assert_close(ours.x0, theirs.x0)
    torch.testing.assert_close(ours.eps, theirs.eps)


def test_without_the_parallel_part_the_update_is_orthogonal_to_the_conditional_prediction(denoiser):
    assert (dot(update(denoiser), told(denoiser)).abs() > 1e-3).all()
    torch.testing.assert_close(dot(update(denoiser, eta=0.0), told(denoiser)), torch.zeros(4).double(),
                               rtol=0, atol=1e-9)


def test_eta_scales_the_parallel_part_alone(denoiser):
    off, half, full = (update(denoiser, eta=eta) for eta in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (off + full) / 2)
    along = told(denoiser)
    torch.testing.assert_close(full - off, (dot(full, along) / dot(along, along))[:, None] * along)


@pytest.mark.parametrize("r", [0.01, 0.1, 1.0])
def test_the_threshold_bounds_the_update_and_keeps_its_direction(denoiser, r):
    free, bound = update(denoiser), update(denoiser, norm_threshold=r)
    length = free.norm(dim=1)
    torch.testing.assert_close(bound, free * (r / length).clamp(max=1)[:, None])
    torch.testing.assert_close(update(denoiser, norm_threshold=length.max().item() + 1), free)


@pytest.mark.parametrize("beta", [-0.5, 0.75])
def test_momentum_adds_the_steps_before_with_weights_beta_to_the_power_of_their_age(denoiser, beta):
    denoise = apg(denoiser, COND, NULL, 2.0, **{**OFF, "momentum": beta})
    times = [T, T / 2, T / 3]
    for k, t in enumerate(times):
        added = denoise(X.double(), t).x0 - told(denoiser, t)
        expected = sum(beta**age * difference(denoiser, times[k - age]) for age in range(k + 1))
        torch.testing.assert_close(added, expected)


def test_each_denoise_begins_without_momentum(denoiser):
    first, second = (apg(denoiser, COND, NULL, 4.0, momentum=-0.5) for _ in range(2))
    fresh = first(X.double(), T).x0
    assert not torch.allclose(first(X.double(), T).x0, fresh)
    assert torch.equal(second(X.double(), T).x0, fresh)


def test_outside_the_interval_there_is_no_guidance_and_no_cost(denoiser):
    log_snr = float(denoiser.schedule.log_snr(T))
    denoise = apg(denoiser, COND, NULL, 4.0, interval=(log_snr + 1e-6, math.inf))
    denoiser.network.rows.clear()
    assert torch.equal(denoise(X.double(), T).x0, told(denoiser))
    assert denoiser.network.rows == [4, 4]


def test_branches_that_agree_are_left_alone(denoiser):
    same = apg(denoiser, COND, COND, 4.0, norm_threshold=2.5)(X.double(), T)
    torch.testing.assert_close(same.x0, told(denoiser))


@pytest.mark.parametrize("wrong", [{"norm_threshold": 0.0}, {"momentum": 1.0}, {"momentum": -1.5}])
def test_what_makes_no_sense_is_refused(denoiser, wrong):
    with pytest.raises(ValueError, match=f"guidance.{next(iter(wrong))}"):
        apg(denoiser, COND, NULL, 4.0, **wrong)

"""Whole trajectories with equal noise and equal model outputs."""

import pytest
import torch

from diffusion.discretizations import leading, trailing
from diffusion.estimate import Estimate
from diffusion.parameterizations import X0, Epsilon, V
from diffusion.samplers import ddim, ddpm, ddpm_large
from diffusion.schedules import Cosine, Linear, ScaledLinear

diffusers = pytest.importorskip("diffusers")

TABLES = {
    Linear(): {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    ScaledLinear(): {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    Cosine(): {"beta_schedule": "squaredcos_cap_v2"},
}
TARGETS = {Epsilon(): "epsilon", V(): "v_prediction", X0(): "sample"}
every_table = pytest.mark.parametrize("schedule", TABLES, ids=repr)
every_target = pytest.mark.parametrize("parameterization", TARGETS, ids=repr)
every_spacing = pytest.mark.parametrize("grid, spacing", [(trailing, "trailing"), (leading, "leading")])
N = 20


def output(x, k):
    """What the network says of x at step k: smooth, bounded, and not what any true denoiser would say."""
    return torch.sin(x + 0.1 * k)


def settings(schedule, parameterization, spacing):
    return dict(
        TABLES[schedule],
        num_train_timesteps=1000,
        prediction_type=TARGETS[parameterization],
        timestep_spacing=spacing,
        clip_sample=False,
        steps_offset=0,
    )


def assert_same_trajectory(sampler, schedule, parameterization, grid, scheduler, step):
    x, z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.randn(N, 2, 3, 4, 4)
    calls, noises = iter(range(N)), iter(z)

    def denoise(x_t, t):
        y = output(x_t, next(calls))
        return Estimate(
            parameterization.to_x0(y, x_t, schedule, t), parameterization.to_eps(y, x_t, schedule, t)
        )

    scheduler.set_timesteps(N)
    theirs = x
    ours = sampler(denoise, schedule, x, grid(schedule, N), lambda x: next(noises))
    for k, (t, mine) in enumerate(zip(scheduler.timesteps, ours, strict=True)):
        theirs = step(output(theirs, k), t, theirs, z[k])
        torch.testing.assert_close(mine.x, theirs, rtol=1e-4, atol=1e-4)


@every_table
@every_target
@every_spacing
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(schedule, parameterization, grid, spacing, eta):
    scheduler = diffusers.DDIMScheduler(
        **settings(schedule, parameterization, spacing), set_alpha_to_one=True
    )

    def step(y, t, x, z):
        return scheduler.step(y, t, x, eta=eta, variance_noise=z if eta else None).prev_sample

    def sampler(*args):
        return ddim(*args, eta=eta)

    assert_same_trajectory(sampler, schedule, parameterization, grid, scheduler, step)


# fixed_large: leading grid only; in the last step of any other diffusers adds noise to the sample
@every_table
@every_target
@pytest.mark.parametrize(
    "sampler, variance, grid, spacing",
    [
        (ddpm, "fixed_small", trailing, "trailing"),
        (ddpm, "fixed_small", leading, "leading"),
        (ddpm_large, "fixed_large", leading, "leading"),
    ],
)
def test_ddpm(schedule, parameterization, grid, spacing, sampler, variance, monkeypatch):
    scheduler = diffusers.DDPMScheduler(
        **settings(schedule, parameterization, spacing), variance_type=variance
    )

    def step(y, t, x, z):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: z)
        return scheduler.step(y, t, x).prev_sample

    assert_same_trajectory(sampler, schedule, parameterization, grid, scheduler, step)

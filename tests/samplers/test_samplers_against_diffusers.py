"""Whole trajectories with equal noise and equal model outputs."""

from functools import partial

import pytest
import torch

from diffusion.discretizations import leading, trailing, uniform
from diffusion.estimate import Estimate
from diffusion.parameterizations import X0, Epsilon, V, Velocity
from diffusion.samplers import ddim, ddpm, ddpm_large, deis, dpmpp_2m, heun, sde_dpmpp_2m, unipc
from diffusion.schedules import Cosine, Linear, RectifiedFlow, ScaledLinear

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


def assert_same_trajectory(sampler, schedule, parameterization, grid, scheduler, step, until=N):
    seeded = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 3, 4, 4, generator=seeded), torch.randn(N, 2, 3, 4, 4, generator=seeded)
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
        if k >= until:
            break
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


X0_CASES = {"dpmpp_2m": (dpmpp_2m, "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
            "unipc of order 2": (partial(unipc, order=2), "UniPCMultistepScheduler", {"solver_order": 2}),
            "unipc of order 3": (partial(unipc, order=3), "UniPCMultistepScheduler", {"solver_order": 3})}


@every_table
@pytest.mark.parametrize("case", X0_CASES)
def test_multistep_solvers(schedule, case):
    """In their own words: of data, on a trailing grid, with a last step of order 1."""
    sampler, name, options = X0_CASES[case]
    chosen = settings(schedule, X0(), "trailing")
    chosen.pop("clip_sample")
    scheduler = getattr(diffusers, name)(**chosen, **options, final_sigmas_type="zero", thresholding=False)

    def step(y, t, x, z):
        return scheduler.step(y, t, x).prev_sample

    # of order 3 they take the last step but one with order 2
    until = N - 2 if "3" in case else N
    assert_same_trajectory(sampler, schedule, X0(), trailing, scheduler, step, until)


@every_table
def test_the_sde_solver(schedule, monkeypatch):
    chosen = settings(schedule, X0(), "trailing")
    chosen.pop("clip_sample")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **chosen, algorithm_type="sde-dpmsolver++", solver_order=2, final_sigmas_type="zero")
    monkeypatch.setattr("diffusers.schedulers.scheduling_dpmsolver_multistep.randn_tensor",
                        lambda *args, **kwargs: noises.pop(0))
    noises = []

    def step(y, t, x, z):
        noises[:] = [z]
        return scheduler.step(y, t, x).prev_sample

    assert_same_trajectory(sde_dpmpp_2m, schedule, X0(), trailing, scheduler, step)


@pytest.mark.parametrize("schedule", [Linear(), ScaledLinear()], ids=repr)
def test_euler_ancestral_is_ddim_with_eta_1(schedule, monkeypatch):
    """They work on x / alpha, and their noise, too, is not divided by anything."""
    chosen = settings(schedule, Epsilon(), "trailing")
    chosen.pop("clip_sample")
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**chosen)
    monkeypatch.setattr("diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor",
                        lambda *args, **kwargs: noises.pop(0))
    noises = []
    alphas = iter(schedule.alpha(trailing(schedule, N)).float())

    class InTheirUnits:
        """Their scheduler, with x = alpha (x / alpha) outside."""

        timesteps = property(lambda self: scheduler.timesteps)

        def set_timesteps(self, n):
            scheduler.set_timesteps(n)
            self.alpha = next(alphas)

        def step(self, y, t, x, z):
            noises[:] = [z]
            scheduler.scale_model_input(x / self.alpha, t)
            moved, self.alpha = scheduler.step(y, t, x / self.alpha).prev_sample, next(alphas)
            return moved * self.alpha

    theirs = InTheirUnits()
    assert_same_trajectory(partial(ddim, eta=1.0), schedule, Epsilon(), trailing, theirs, theirs.step)


def test_euler_on_rectified_flow():
    """Their sigma is our t."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    ts = uniform(RectifiedFlow(), N)
    scheduler.set_timesteps(sigmas=ts[:-1].tolist())
    x = theirs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    calls, velocity = iter(range(N)), Velocity()

    def denoise(x_t, t):
        y = output(x_t, next(calls))
        return Estimate(velocity.to_x0(y, x_t, RectifiedFlow(), t), velocity.to_eps(y, x_t, RectifiedFlow(), t))

    for k, mine in enumerate(ddim(denoise, RectifiedFlow(), x, ts)):
        theirs = scheduler.step(output(theirs, k), scheduler.timesteps[k], theirs).prev_sample
        torch.testing.assert_close(mine.x, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", [Linear(), ScaledLinear()], ids=repr)
def test_deis(schedule):
    """Their last step ends at the table's first noise level, ours at 0; on cosine their float32 loses the start."""
    chosen = settings(schedule, Epsilon(), "trailing")
    chosen.pop("clip_sample")
    scheduler = diffusers.DEISMultistepScheduler(**chosen, solver_order=2)

    def step(y, t, x, z):
        return scheduler.step(y, t, x).prev_sample

    assert_same_trajectory(partial(deis, order=2), schedule, Epsilon(), trailing, scheduler, step, until=N - 1)


@pytest.mark.parametrize("schedule", [Linear(), ScaledLinear()], ids=repr)
@pytest.mark.parametrize("name, sampler, evaluations", [("EulerDiscreteScheduler", ddim, 1),
                                                        ("HeunDiscreteScheduler", heun, 2)])
def test_euler_and_heun(schedule, name, sampler, evaluations):
    """They work on x / alpha, and give the network x / sqrt(1 + (sigma / alpha)^2), which is our x."""
    chosen = settings(schedule, Epsilon(), "trailing")
    chosen.pop("clip_sample")
    scheduler = getattr(diffusers, name)(**chosen)
    scheduler.set_timesteps(N)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    calls = iter(range(2 * N))

    def denoise(x_t, t):
        y = output(x_t, next(calls))
        return Estimate(Epsilon().to_x0(y, x_t, schedule, t), y)

    theirs, ts = x / schedule.alpha(1.0).float(), trailing(schedule, N)
    k = 0
    for s, mine in zip(ts[1:], sampler(denoise, schedule, x, ts), strict=True):
        for _ in range(evaluations if s > 0 else 1):
            t = scheduler.timesteps[k]
            y = output(scheduler.scale_model_input(theirs, t), k)
            theirs, k = scheduler.step(y, t, theirs).prev_sample, k + 1
        torch.testing.assert_close(mine.x, theirs * schedule.alpha(s).float(), rtol=1e-4, atol=1e-4)

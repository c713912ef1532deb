"""How far from the exact solution of the sampling ODE a sampler ends, by evaluations of the network; diffusers' beside.

    python experiments/sampler_convergence/run.py ckpt=RUN [scales=1] [n=8]

Same model, same start, same guidance. Error: root mean square over the final latents, relative to that of the latents;
exact is DPM-Solver++ 3M in 400 steps of equal log-SNR. Both sides may choose the grid: what stands in the results is
each sampler's best, with the grid's name. A sampler gets as many steps as its budget of evaluations allows.
"""

import dataclasses
import functools
import inspect
import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from diffusion import checkpoint
from diffusion.discretizations import karras, log_snr, trailing
from diffusion.estimate import Estimate
from diffusion.guidance import classifier_free
from diffusion.loading import load_model
from diffusion.reporting.figure import write_figure
from diffusion.reporting.plot import Line, Plot
from diffusion.rng import SampleNoise
from diffusion.samplers import ddim, deis, dpmpp_2m, dpmpp_2s, dpmpp_3m, heun, unipc

HERE = Path(__file__).parent
BUDGETS = (5, 10, 20, 40)
PROMPTS = ("a photo of a horse", "a photo of a ship", "a photo of a frog", "a photo of a truck")
CLIPPED = -10.2  # the log-SNR from which solvers may start: DPM-Solver's advice for cosine, lambda = -5.1
OURS = {"ddim": ddim, "heun": heun, "dpmpp_2s": dpmpp_2s, "dpmpp_2m": dpmpp_2m, "dpmpp_3m": dpmpp_3m, "unipc": unipc,
        "unipc, order 3": functools.partial(unipc, order=3), "deis": deis}
MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
THEIRS = {"DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True}),
          "Heun": ("HeunDiscreteScheduler", {}),
          "DPM-Solver++ 2S": (SINGLESTEP, {"solver_order": 2}), "DPM-Solver++ 3S": (SINGLESTEP, {"solver_order": 3}),
          "DPM-Solver++ 2M": (MULTISTEP, {"solver_order": 2}), "DPM-Solver++ 3M": (MULTISTEP, {"solver_order": 3}),
          "UniPC 2": ("UniPCMultistepScheduler", {"solver_order": 2}),
          "UniPC 3": ("UniPCMultistepScheduler", {"solver_order": 3}),
          "DEIS 3": ("DEISMultistepScheduler", {"solver_order": 3})}
SPACINGS = {"trailing": {"timestep_spacing": "trailing"}, "linspace": {"timestep_spacing": "linspace"},
            "leading": {"timestep_spacing": "leading"},
            "linspace, clipped": {"timestep_spacing": "linspace", "lambda_min_clipped": CLIPPED / 2},
            "karras": {"use_karras_sigmas": True}, "log-SNR": {"use_lu_lambdas": True}}
SETTINGS = {"Cosine": {"beta_schedule": "squaredcos_cap_v2"},
            "Linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
            "ScaledLinear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}}
SAME = {"ddim": "DDIM", "heun": "Heun", "dpmpp_2s": "DPM-Solver++ 2S", "dpmpp_2m": "DPM-Solver++ 2M",
        "dpmpp_3m": "DPM-Solver++ 3M", "unipc": "UniPC 2", "unipc, order 3": "UniPC 3", "deis": "DEIS 3"}


def grids(schedule) -> dict:
    """Name -> n -> times; the last one before 0 has the table's first noise level."""
    last = float(schedule.log_snr(1 / schedule.T))
    low = max(CLIPPED, float(schedule.log_snr(1.0)))
    return {"trailing": functools.partial(trailing, schedule),
            "log-SNR, clipped": functools.partial(log_snr, schedule, log_snr_min=low, log_snr_max=last),
            "log-SNR": functools.partial(log_snr, schedule, log_snr_max=last),
            "karras, clipped": functools.partial(karras, schedule, log_snr_min=low, log_snr_max=last)}


def evaluations(sampler, schedule, times, n: int) -> int:
    """How often a sampler asks the denoiser in n steps on this grid."""
    asked = []

    def denoise(x, t):
        asked.append(t)
        return Estimate(x, x)

    deque(sampler(denoise, schedule, torch.zeros(1, 1), times(n)), maxlen=0)
    return len(asked)


def steps_within(budget: int, cost: Callable[..., int], *arguments) -> int:
    """The largest n for which cost(*arguments, n) is at most `budget`; 0 if there is none."""
    return max((n for n in range(1, budget + 1) if cost(*arguments, n) <= budget), default=0)


def ours(sampler, denoise, schedule, eps: Tensor, ts) -> Tensor:
    return deque(sampler(denoise, schedule, schedule.prior(ts[0], eps), ts), maxlen=1)[0].x


def schedulers(name: str, schedule, ours: dict) -> dict:
    """Grid -> diffusers' class and what sets its n steps: their own spacings that it knows, and where it takes a list
    of times, our grids, rounded to their table."""
    kind, options = THEIRS[name]
    kind = getattr(diffusers, kind)
    base = {**SETTINGS[type(schedule).__name__], **options, "prediction_type": "v_prediction",
            "num_train_timesteps": schedule.T}
    known, found = kind().config, {}
    if "final_sigmas_type" in known:
        base["final_sigmas_type"] = "zero"

    for grid, spacing in SPACINGS.items():
        if spacing.keys() <= known.keys():
            found[grid] = steps_of(kind(**base, **spacing))
    if "timesteps" in inspect.signature(kind.set_timesteps).parameters:
        for grid, times in ours.items():
            found[f"ours: {grid}"] = steps_of(kind(**base), times, schedule.T)
    return found


def steps_of(scheduler, times=None, T: int = 1000) -> tuple:
    """The scheduler, and what sets its n steps and returns them."""
    def set_steps(n):
        if times is None:
            scheduler.set_timesteps(n)
        else:
            scheduler.set_timesteps(timesteps=(times(n)[:-1] * T - 1).round().clamp(min=0).int().tolist())
        return scheduler.timesteps

    return scheduler, set_steps


def theirs(scheduler, denoise, schedule, eps: Tensor) -> Tensor:
    """Their loop, after set_timesteps; `denoise` guides our network, whose v they are told."""
    x = eps * scheduler.init_noise_sigma
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    for k in scheduler.timesteps:
        t = (k.double() + 1) / schedule.T
        x_t = scheduler.scale_model_input(x, k).float()
        estimate = denoise(x_t, t)
        alpha, sigma = schedule.alpha(t).float(), schedule.sigma(t).float()
        x = scheduler.step(alpha * estimate.eps - sigma * estimate.x0, k, x, return_dict=False)[0]
    return x


def best(errors: dict[str, float]) -> list:
    """[error, grid] of the best grid."""
    return [*min((value, name) for name, value in errors.items() if value == value)] if errors else [None, None]


@torch.no_grad()
def measured(model, scale: float, n: int) -> dict:
    """Sampler -> budget -> [error, grid], ours and theirs."""
    schedule = model.denoiser.schedule
    pictures = [(PROMPTS[i % len(PROMPTS)], 0, i // len(PROMPTS)) for i in range(n)]
    cond, null = model.condition([prompt for prompt, _, _ in pictures]), model.condition([""]).expand(n)
    eps = SampleNoise(pictures, "start")(torch.empty(n, *model.latent_shape))
    denoise = classifier_free(model.denoiser, cond, null, scale=scale)
    every = grids(schedule)
    exact = ours(dpmpp_3m, denoise, schedule, eps, every["log-SNR"](400))
    check = ours(heun, denoise, schedule, eps, every["log-SNR"](200))

    def error(x):
        return ((x - exact).square().mean() / exact.square().mean()).sqrt().item()

    out = {"exact against Heun in 200 steps": error(check), "ours": {}, "diffusers": {}}
    print(scale, out, flush=True)
    for name, sampler in OURS.items():
        out["ours"][name] = {}
        for budget in BUDGETS:
            errors = {}
            for grid, times in every.items():
                steps = steps_within(budget, evaluations, sampler, schedule, times)
                if steps:
                    errors[grid] = error(ours(sampler, denoise, schedule, eps, times(steps)))
            out["ours"][name][budget] = best(errors)
        print(scale, name, out["ours"][name], flush=True)
    for name in THEIRS:
        out["diffusers"][name] = {}
        for budget in BUDGETS:
            errors = {}
            for grid, (scheduler, set_steps) in schedulers(name, schedule, every).items():
                try:
                    set_steps(steps_within(budget, lambda set_steps, n: len(set_steps(n)), set_steps))
                    errors[grid] = error(theirs(scheduler, denoise, schedule, eps))
                except (AssertionError, IndexError, ValueError, RuntimeError) as refusal:
                    print(f"diffusers {name}, {grid}, {budget}: {refusal!r}", flush=True)
            out["diffusers"][name][budget] = best(errors)
        print(scale, name, out["diffusers"][name], flush=True)
    return out


def plot(scale: str, measured: dict) -> Plot:
    """Error over evaluations, ours drawn through, theirs dashed."""
    names = [("ours", name, name) for name in OURS] + [("diffusers", name, f"diffusers {name}") for name in THEIRS]
    lines = []
    for side, name, label in names:
        points = [(float(budget), error) for budget, (error, _) in measured[side][name].items() if error is not None]
        lines.append(Line(label, SAME.get(name, name), points, stroke=int(side == "diffusers")))
    colours = {colour: i for i, colour in enumerate(dict.fromkeys(line.colour for line in lines))}
    lines = [dataclasses.replace(line, colour=colours[line.colour]) for line in lines]
    return Plot(f"guidance {scale}", "evaluations of the network", "error", lines, log_x=True, log_y=True,
                ticks=BUDGETS)


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    file = checkpoint.load(checkpoint.model_path(given["ckpt"], "ckpt"), "latent_diffusion")
    n, model = int(given.get("n", 8)), load_model(file)
    results = {"n": n, "diffusers": diffusers.__version__, "torch": torch.__version__,
               "scales": {scale: measured(model, float(scale), n) for scale in given.get("scales", "1").split(",")}}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for scale, found in results["scales"].items():
        write_figure(HERE / f"guidance_{scale}.svg", plot(scale, found))


if __name__ == "__main__":
    main()

"""What a picture costs: how often the network sees it, counted by sampling one number with a network that echoes."""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion.conditioning import Conditioning
from diffusion.config import ConfigError, build, locate
from diffusion.denoiser import Denoiser
from diffusion.discretizations import trailing
from diffusion.rehearsal import rehearsal
from diffusion.reporting.run import Run
from diffusion.samplers.ddim import ddim


def count(denoiser_of: Callable[[Callable], Denoiser], steps: int, *, sampler: Callable = ddim,
          discretization: Callable = trailing, guidance: Callable, captioned: bool = True) -> int:
    """Rows that the networks see for one picture: two where guidance acts; a guide counts as the model."""
    rows = []

    def echo(x: Tensor, label: Tensor, cond: Conditioning | None) -> Tensor:
        rows.append(len(x))
        return torch.cat([x, x], 1)  # y, and the variance for those who ask

    guide = denoiser_of(echo) if "guide" in inspect.signature(guidance).parameters else None
    for _ in rehearsal(denoiser_of(echo), sampler=sampler, discretization=discretization, guidance=guidance,
                       steps=steps, captioned=captioned, guide=guide):
        pass
    return sum(rows)


def network_evaluations(run: Run, record: Mapping[str, Any], trusted: Iterable[str]) -> int | None:
    """Of one evaluation of a run. None where its sampler, as the record names it, is not ours or chooses its steps."""
    if record["sampler"].startswith("adaptive"):
        return None
    try:
        parts = {part: named(record[part], f"diffusion.{module}") for part, module in
                 (("sampler", "samplers"), ("discretization", "discretizations"), ("guidance", "guidance"))}
        schedule, parameterization = (build(run.cfg[part], trusted) for part in ("schedule", "parameterization"))
        return count(lambda echo: Denoiser(echo, schedule, parameterization), record["steps"], **parts,
                     captioned=bool(run.cfg.text_encoder))
    except (ConfigError, SyntaxError, ValueError, TypeError, KeyError):  # not ours, or of another version
        return None


def own_network_evaluations(run: Run, trusted: Iterable[str]) -> int | None:
    """Of what train.py measured. None where that is not known, or the sampler chooses its steps."""
    drawn = run.results.get("sampling")
    if drawn is None or drawn["sampler"]["_target_"].endswith(".adaptive"):
        return None
    try:
        parts = {part: build(drawn[part], trusted) for part in ("sampler", "discretization", "guidance")}
        schedule, parameterization = (build(run.cfg[part], trusted) for part in ("schedule", "parameterization"))
        return count(lambda echo: Denoiser(echo, schedule, parameterization), drawn["steps"], **parts,
                     captioned=bool(run.cfg.text_encoder))
    except (ConfigError, ValueError, TypeError, KeyError):
        return None


def named(text: str, module: str) -> Callable:
    """The function of a module that `config.name_of` called so: "edm(churn=40.0)", without the file of its guide.

    Raises SyntaxError, ValueError, ConfigError where it is none.
    """
    literal = re.sub(r"\binf\b", "1e999", re.sub(r"(, )?guide=[^,)]*", "", text))
    call = ast.parse(literal, mode="eval").body
    name, given = (call.func, call.keywords) if isinstance(call, ast.Call) else (call, [])
    arguments = {word.arg: ast.literal_eval(word.value) for word in given}
    return functools.partial(locate(f"{module}.{ast.unparse(name)}"), **arguments)

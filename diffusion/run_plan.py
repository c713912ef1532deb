"""plan.yaml: what was decided on this machine before a run began (precision, compiling, the steps of a budget), and
what the run obeys when it goes on."""

import dataclasses

import torch
import yaml

from diffusion import budget, processes
from diffusion.acceleration import Acceleration, choose
from diffusion.machine import has_fast_bf16
from diffusion.stages import Stage

FILE = "plan.yaml"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The acceleration, and whether it is kept from an earlier start; the steps of a budget, None where none were
    counted."""

    acceleration: Acceleration
    kept: bool
    steps: int | None


def read(stage: Stage, device: torch.device) -> Plan:
    """What the file holds; of the acceleration a first choice for this machine where it was made for another kind of
    device, or is not there yet. The first process decides."""
    has_fast_bf16(device)  # asked for what it does besides: where bf16 crashes, it keeps this process from it

    def decided() -> Plan:
        path, asked = stage.folder / FILE, stage.cfg.compile
        held = yaml.safe_load(path.read_text()) if path.exists() else {}
        if held.get("device") != device.type:
            return Plan(choose(stage.cfg.precision, asked, device), False, held.get("steps"))
        acceleration = Acceleration(**held["acceleration"])
        if asked != "auto":
            acceleration = dataclasses.replace(acceleration, compile=bool(asked),
                                               graphs=bool(asked) and device.type == "cuda")
        return Plan(acceleration, True, held.get("steps"))

    return processes.by_first(decided)


def ahead(cfg, spent: float) -> dict[str, float]:
    """What `accelerate` weighs compiling against, after `spent` seconds of a budget: nothing where it was asked for."""
    if cfg.compile != "auto":
        return {}
    seconds = {} if cfg.budget is None else {"seconds": budget.seconds_of(cfg.budget) - spent}
    passes = {"passes": cfg.steps * cfg.accumulate} if cfg.budget is None or cfg.at_most else {}
    return seconds | passes


def write(stage: Stage, acceleration: Acceleration, device: torch.device, steps: int) -> None:
    """steps  of the run; kept where a budget decided them"""
    counted = {} if stage.cfg.budget is None else {"steps": steps}
    stage.write(FILE, {"acceleration": vars(acceleration), "device": device.type, **counted})

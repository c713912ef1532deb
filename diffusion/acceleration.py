"""The fast setting of a network on this machine: bf16, channels_last, torch.compile - chosen by measurement, never by
trust.

A compiler can drop gradients without a word, so each parameter's gradient of the compiled network is first compared
with the eager network's; where they differ, the network stays eager and a line says so.
"""

import copy
import dataclasses
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.checkpoint import atomic

log = logging.getLogger(__name__)
DTYPES = {"32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclasses.dataclass(frozen=True)
class Acceleration:
    """What a probe of the machine decided; kept in plan.yaml and obeyed on resume."""

    precision: str = "32"
    channels_last: bool = False
    compile: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type that autocast computes in."""
        return DTYPES[self.precision]

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which networks run; everything else stays in float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype is not torch.float32)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return ", ".join([self.precision, *(["channels_last"] if self.channels_last else []),
                          "compiled" if self.compile else "eager"])


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix units for bf16 are there and work: Ampere and later, or a CPU with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and cpu_bf16_gain() > 1.5


PROBE = """
import time, torch
def seconds(dtype):
    a = torch.randn(1024, 1024).to(dtype)
    times = []
    for _ in range(7):
        start = time.perf_counter(); a @ a; times.append(time.perf_counter() - start)
    return min(times)
print(seconds(torch.float32) / seconds(torch.bfloat16))
"""


@functools.cache
def cpu_bf16_gain() -> float:
    """How many times faster than float32 a matrix product in bf16 is on this CPU; 0 without AMX, or where it crashes.

    Some virtual machines list AMX but hide how to configure it (CPUID leaf 0x1D), and the first product in bf16 then
    ends the process with an illegal instruction. So a process of its own tries, and where it dies, this one is kept
    from using AMX.
    """
    if not torch.cpu._is_amx_tile_supported():
        return 0.0
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if probe.returncode:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
        log.info("this CPU lists AMX, but it does not work here: float32 instead of bf16, several times slower")
        return 0.0
    return float(probe.stdout)


WORTH_COMPILING = 500  # steps: compiling takes a minute or two on a CPU


def choose(precision: str | int, compile: bool | str, device: torch.device, steps: int = 0) -> Acceleration:
    """`precision` is auto, 32, bf16-mixed or 16-mixed; `compile` is auto, true or false.

    Raises ValueError for a precision that the device does not have.
    """
    fast, precision = has_fast_bf16(device), str(precision)
    if precision == "auto":
        precision = "bf16-mixed" if fast else "32"
    if precision not in DTYPES:
        raise ValueError(f"precision = {precision}: allowed are auto, {', '.join(DTYPES)}")
    if precision == "16-mixed" and device.type != "cuda":
        raise ValueError(f"precision = 16-mixed needs a CUDA device, this is {device.type}: take bf16-mixed or 32")
    compiler = device.type == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++")))
    if compile == "auto":
        compile = fast and compiler and precision != "32" and steps >= WORTH_COMPILING
        if fast and not compiler:
            log.info("no C++ compiler: networks run uncompiled, about half as fast")
    # uncompiled on a CPU, normalisation is slow in channels_last
    channels_last = fast and precision != "32" and (bool(compile) or device.type == "cuda")
    return Acceleration(precision, channels_last, bool(compile))


WRONG = 0.3  # relative error of one parameter's gradient: bf16 rounding reaches 0.1, a dropped gradient is 1


def accelerate(
    network: nn.Module, example: Callable[[], tuple], plan: Acceleration, verdicts: Path | None = None
) -> Acceleration:
    """Bring a network into the planned setting; returns what it really got.

    example()  positional inputs of one training call, at the training batch's size
    verdicts   folder that remembers per network, machine and version whether compiled gradients were right
    """
    if plan.channels_last:
        network.to(memory_format=torch.channels_last)
    if not plan.compile:
        return plan
    verdict = None if verdicts is None else verdicts / f"{_machine(network, plan)}.txt"
    known = verdict.read_text() if verdict is not None and verdict.exists() else None
    if known is None:
        worst, name = gradient_error(network, example(), plan)
        known = "right" if worst < WRONG else f"wrong at {name} (relative error {worst:.2g})"
        if verdict is not None:
            atomic(verdict, lambda temporary: Path(temporary).write_text(known))
    elif known == "right":
        network.compile(dynamic=False)
    if known != "right":
        network._compiled_call_impl = None
        log.info("compiled gradients of %s are %s: it runs uncompiled", type(network).__name__, known)
        channels_last = plan.channels_last and next(network.parameters()).device.type == "cuda"
        if not channels_last:  # slow there, uncompiled
            network.to(memory_format=torch.contiguous_format)
        return dataclasses.replace(plan, compile=False, channels_last=channels_last)
    return plan


def gradient_error(network: nn.Module, example: tuple, plan: Acceleration) -> tuple[float, str]:
    """Largest relative error of a parameter's gradient, compiled against eager, and the parameter's name.

    Leaves the network compiled, with the parameters it had. They are jittered for the comparison, because zeros in a
    last layer would hide everything before it; dropout, which a compiler draws otherwise, is off.
    """
    # only those that drop: a module that was touched is compiled anew
    dropouts = {module: module.p for module in network.modules() if isinstance(module, nn.Dropout) and module.p > 0}
    for module in dropouts:
        module.p = 0.0
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)
                                              ).to(parameter.device))
    eager = _gradients(network, example, plan)
    network.compile(dynamic=False)
    compiled = _gradients(network, example, plan)
    network.load_state_dict(before)
    for module, p in dropouts.items():
        module.p = p
    network.zero_grad(set_to_none=True)
    total = torch.stack([g.norm() for g in eager.values()]).norm()
    errors = {name: ((compiled[name] - g).norm() / g.norm().clamp(min=1e-2 * total)).item()
              for name, g in eager.items()}
    name = max(errors, key=lambda n: errors[n] if errors[n] == errors[n] else float("inf"))
    return (errors[name] if errors[name] == errors[name] else float("inf")), name


def _gradients(network: nn.Module, example: tuple, plan: Acceleration) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    device = next(network.parameters()).device
    with plan.autocast(device):
        out = as_one(network(*example))
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (out.float() * weight).mean().backward()
    return {name: p.grad.float().clone() for name, p in network.named_parameters() if p.grad is not None}


def as_one(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """All that a network returned, as one tensor."""
    return out if isinstance(out, Tensor) else torch.cat([part.flatten(1) for part in out], 1)


def _machine(network: nn.Module, plan: Acceleration) -> str:
    """Names a (network, machine, version) whose verdict can be reused."""
    shapes = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    device = next(network.parameters()).device
    kind = (torch.cuda.get_device_name(device) if device.type == "cuda"
            else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {has_fast_bf16(device)}")
    key = (type(network).__qualname__, shapes, torch.__version__, kind, str(plan))
    return hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()



@torch.no_grad()
def machine_speed(device: torch.device, reference_milliseconds: float = 3.0) -> float:
    """How many times longer than the reference machine (2 cores with AMX) a convolution takes here: for estimates.

    A 3x3 convolution of 128 channels on 64 x 16 x 16 positions, in the type that `choose` would take.
    """
    plan = choose("auto", False, device)
    convolution = nn.Conv2d(128, 128, 3, padding=1, device=device).to(memory_format=plan.memory_format)
    x = torch.randn(64, 128, 16, 16, device=device).contiguous(memory_format=plan.memory_format)

    def milliseconds() -> float:
        start = time.perf_counter()
        with plan.autocast(device):
            convolution(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - start)

    return min(milliseconds() for _ in range(20)) / reference_milliseconds

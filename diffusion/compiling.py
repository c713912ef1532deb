"""Whether a network is compiled: only where that is right, and repays.

A compiler can drop gradients without a word, so each parameter's gradient of the compiled network is first compared
with the eager network's; where they differ, the network stays eager and a line says so.
"""

import copy
import hashlib
import logging
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import processes
from diffusion.acceleration import Acceleration
from diffusion.files import write_text
from diffusion.machine import has_fast_bf16

log = logging.getLogger(__name__)
NETWORKS = 4  # raised where a network computes the same in another way: what compiling came to is found out anew
WRONG = 0.3  # relative error of one parameter's gradient: bf16 rounding reaches 0.1, a dropped gradient is 1
# seconds of uncompiled passes: compiling takes minutes, and saves half of them on a CPU at best, four fifths on a GPU
WORTH_TRYING = {"cpu": 600, "cuda": 300}
FEW = 100  # passes that are not worth measuring
RIGHT, SLOWER, FAILED = "right", "right, but slower", "not to be had"  # verdicts; any other tells what is wrong


def accelerate(
    network: nn.Module, example: Callable[[], tuple], plan: Acceleration, verdicts: Path | None = None,
    passes: float | None = None, seconds: float | None = None,
) -> Acceleration:
    """Bring a network into the planned setting; returns what it really got, the same on all processes.

    example()  positional inputs of one training call, at the training batch's size
    verdicts   folder that remembers per network, machine and version what compiling came to
    passes     how many are ahead,
    seconds    or how long they may take: it is compiled only where that repays. Neither given: wherever the compiled
               gradients are right
    """
    if not plan.compile:
        network.to(memory_format=plan.memory_format)
        return plan
    device, weighed = next(network.parameters()).device, passes is not None or seconds is not None
    plain = plan.uncompiled(device)
    if weighed:
        network.to(memory_format=plain.memory_format)
        worth = WORTH_TRYING["cuda" if device.type == "cuda" else "cpu"]
        if (passes is not None and passes < FEW) or (seconds is not None and seconds < worth):
            return plain
        uncompiled = processes.from_first(seconds_per_pass(network, example(), plain))
        if passes is not None and uncompiled * passes < worth:
            return plain
    network.to(memory_format=plan.memory_format)
    verdict = None if verdicts is None else verdicts / f"{_machine(network, example(), plan)}.txt"
    known = processes.from_first(verdict.read_text() if verdict is not None and verdict.exists() else None)
    if known is None:
        known = processes.from_first(tried(network, example(), plan, uncompiled if weighed else None))
        if verdict is not None and not known.startswith(FAILED):
            write_text(verdict, known)
    if known == RIGHT or (not weighed and known.startswith(SLOWER)):
        plan.compile_in_place(network)
        return plan
    network._compiled_call_impl = None
    network.to(memory_format=plain.memory_format)
    log.info("compiled gradients of %s are %s: it runs uncompiled", type(network).__name__, known)
    return plain


def tried(network: nn.Module, example: tuple, plan: Acceleration, uncompiled: float | None) -> str:
    """What compiling comes to, beside a pass that takes `uncompiled` seconds."""
    try:
        worst, name = gradient_error(network, example, plan)
        if not worst < WRONG:
            return f"wrong at {name} (relative error {worst:.2g})"
        if uncompiled is not None and (compiled := seconds_per_pass(network, example, plan)) > uncompiled:
            return f"{SLOWER} ({compiled:.3g} s a pass there and back, uncompiled {uncompiled:.3g} s)"
    except Exception as error:  # no compiler, or one that fails
        return f"{FAILED} ({first_line(error)})"
    return RIGHT


def first_line(error: Exception) -> str:
    """Of its message, or its kind where it has none."""
    return (str(error) or repr(error)).splitlines()[0]


def seconds_per_pass(network: nn.Module, example: tuple, plan: Acceleration, repeats: int = 3) -> float:
    """There and back: the median of some, after one that is not counted."""
    times, device = [], next(network.parameters()).device
    for _ in range(1 + repeats):
        start = time.perf_counter()
        _gradients(network, example, plan)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    network.zero_grad(set_to_none=True)
    return statistics.median(times[1:])


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
    try:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)
                                                  ).to(parameter.device))
        eager = _gradients(network, example, plan)
        plan.compile_in_place(network)
        for _ in range(3 if plan.graphs else 1):  # the first pass only runs, the second is recorded, the third replayed
            compiled = _gradients(network, example, plan)
    finally:
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
    example = tuple(x.contiguous(memory_format=plan.memory_format) if isinstance(x, Tensor) and x.dim() == 4 else x
                    for x in example)
    with plan.autocast(device):
        out = as_one(network(*example))
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (out.float() * weight).sum().backward()  # a mean's gradients are too small for float16
    return {name: p.grad.float().clone() for name, p in network.named_parameters() if p.grad is not None}


def as_one(out: Tensor | Sequence[Tensor]) -> Tensor:
    """All that a network returned, as one tensor."""
    return out if isinstance(out, Tensor) else torch.cat([part.flatten(1) for part in out], 1)


def _machine(network: nn.Module, example: tuple, plan: Acceleration) -> str:
    """Names a (network, inputs, machine, version) whose verdict can be reused."""
    shapes = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    shapes += [tuple(x.shape) for x in example if isinstance(x, Tensor)]
    device = next(network.parameters()).device
    kind = (torch.cuda.get_device_name(device) if device.type == "cuda"
            else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {has_fast_bf16(device)}")
    key = (NETWORKS, type(network).__qualname__, shapes, torch.__version__, kind, str(plan))
    return hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()


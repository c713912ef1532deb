"""Seconds of a call. What is compared takes turns, so that a slow moment of the machine meets all alike."""

import math
import sys
import time
from collections.abc import Callable, Mapping

import torch


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Of one call, to the end of its work on the device; of several, the mean."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, repeats: int = 1
            ) -> dict[str, float]:
    """Seconds of each call in its quickest round (what else runs on a machine can only slow it), after calls that are
    not counted: one that compiles, and on a CUDA device one that is recorded and one that is replayed."""
    for name, call in calls.items():
        say(f"{name}: first call {seconds(call, device):.1f} s")
        for _ in range(2 if device.type == "cuda" else 0):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, device, repeats))
        say(f"round {number + 1} of {rounds}: " + ", ".join(f"{name} {t[-1]:.3f} s" for name, t in times.items()))
    return {name: min(t) for name, t in times.items()}


def convolution_rate(device: torch.device) -> float:
    """The best GFLOP/s of a 3x3 convolution of 128 channels on 16 x 16 positions, over types and formats: 64 pictures,
    or as many as fill a CUDA device. Tried over ten seconds: others can slow a machine's matrix units for some."""
    batch, repeats = (4096, 10) if device.type == "cuda" else (64, 1)
    calls = []
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device, dtype=dtype).to(memory_format=layout)
            x = torch.randn(batch, 128, 16, 16, device=device, dtype=dtype).contiguous(memory_format=layout)
            calls.append(lambda f=layer, x=x: f(x))
    quickest = math.inf
    with torch.no_grad():
        for _ in range(20):
            quickest = min(quickest, *(seconds(call, device, repeats) for call in calls for _ in range(3)))
            time.sleep(0.5)
    return 2 * batch * 16 * 16 * 128 * 128 * 9 / quickest / 1e9


def matmul_rate(device: torch.device, size: int = 8192) -> float:
    """GFLOP/s of a large product in bf16: what a CUDA device's matrix units really do."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds(lambda: a @ a, device)
    return 2 * size**3 / seconds(lambda: a @ a, device, 10) / 1e9


def say(line: str) -> None:
    """Progress goes to standard error: standard output ends with the result."""
    print(line, file=sys.stderr, flush=True)

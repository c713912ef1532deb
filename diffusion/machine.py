"""What this machine can do, measured once: whether bf16 is fast, and how fast its convolutions are."""

import functools
import logging
import os
import subprocess
import sys
import time

import torch
from torch import nn

log = logging.getLogger(__name__)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 repays: Ampere and later, or a CPU (AMX, AVX512_BF16) where it was measured to."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and cpu_bf16_gain() > 1.5


@functools.cache
def cpu_bf16_gain() -> float:
    """How many times faster than float32 a matrix product in bf16 is on this CPU; 0 where it crashes.

    Some virtual machines list AMX but hide how to configure it (CPUID leaf 0x1D), and the first product in bf16 then
    ends the process with an illegal instruction. So where AMX is listed a process of its own tries, and where it dies,
    this one is kept from using AMX.
    """
    if not torch.cpu._is_amx_tile_supported():
        return measured_bf16_gain()
    probe = subprocess.run([sys.executable, "-c", f"from {__name__} import *; print(measured_bf16_gain())"],
                           capture_output=True, text=True)
    if probe.returncode:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
        log.info("this CPU lists AMX, but it does not work here: float32 instead of bf16, several times slower")
        return 0.0
    return float(probe.stdout)


def measured_bf16_gain(size: int = 1024, repeats: int = 7) -> float:
    """Of a product of two square matrices."""

    def seconds(dtype: torch.dtype) -> float:
        a, times = torch.randn(size, size).to(dtype), []
        for _ in range(repeats):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) / seconds(torch.bfloat16)


LEAST = {"cpu": 0.005, "cuda": 0.025}  # seconds of an update in which Python hands over its operations
TYPICAL = 450e9  # operations a second in the convolutions of 2 CPU cores with fast bf16, but without AMX


def seconds_per_step(flop: float, device: torch.device) -> float:
    """What an update of that much arithmetic is expected to take here, before it was tried: for the plan.

    Trainings reach about half of the rate of a convolution. On a CPU less where its convolutions are fast, for the
    rest is not as fast: where they were 2.4 times as fast, trainings were 1.4 to 2 times as fast.
    """
    rate = convolution_speed(device)
    if device.type == "cpu":
        rate = TYPICAL * (rate / TYPICAL) ** 0.6
    return max(flop / (rate / 2), LEAST["cuda" if device.type == "cuda" else "cpu"])


@functools.cache
@torch.no_grad()
def convolution_speed(device: torch.device) -> float:
    """Operations a second of a 3x3 convolution of 128 channels on 16 x 16 positions, in bf16 where that is fast."""
    cuda, dtype = device.type == "cuda", torch.bfloat16 if has_fast_bf16(device) else torch.float32
    layout, batch = (torch.channels_last, 1024) if cuda else (torch.contiguous_format, 64)
    convolution = nn.Conv2d(128, 128, 3, padding=1, device=device, dtype=dtype).to(memory_format=layout)
    x = torch.randn(batch, 128, 16, 16, device=device, dtype=dtype).contiguous(memory_format=layout)

    def seconds() -> float:
        start = time.perf_counter()
        convolution(x)
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return 2 * 9 * 128 * 128 * x[:, 0].numel() / min(seconds() for _ in range(20))

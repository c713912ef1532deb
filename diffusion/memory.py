"""How much memory is used, kept when freed, and taken by data: where it lies decides how fast a machine trains.

glibc hands every large block back to the system when it is freed, so each training step asks for its activations anew,
page by page. In a virtual machine that gives free pages back to its host this can cost thirty times the step itself.
"""

import ctypes
import platform
import sys
from pathlib import Path

import torch
from torch import Tensor

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """From now on, blocks up to 1 GiB are reused instead of returned. False where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def resident(data: Tensor, device: torch.device) -> Tensor:
    """The tensor on a CUDA device, where it takes at most a quarter of the memory that is free there; else as it is."""
    if device.type != "cuda" or data.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return data
    return data.to(device)


def rows_of(data, index: Tensor) -> Tensor:
    """data[index], of a tensor wherever it lies, without waiting for its device, or of pictures on demand."""
    return data[index.to(data.device, non_blocking=True) if isinstance(data, Tensor) else index]


def peak_gib(device: torch.device) -> float | None:
    """The most memory held so far: by tensors on a CUDA device, elsewhere by this process; None where nobody counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts in what the parent held before it started this program
        held = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if held is not None:
            return int(held) / 2**20
    if sys.platform == "win32":
        return None
    import resource  # Unix only

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB here

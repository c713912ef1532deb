"""Keep freed memory: the allocator's habit that decides how fast a CPU trains.

glibc hands every large block back to the system when it is freed, so each training step asks for its activations anew,
page by page. In a virtual machine that gives free pages back to its host this can cost thirty times the step itself.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """From now on, blocks up to 1 GiB are reused instead of returned. False where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

"""Memory that torch gives back on a CPU is kept for the next step instead of returned to the system.

glibc maps every large block anew and unmaps it when it is freed, so each step of a run on a CPU first
has gigabytes of fresh pages zeroed by the kernel. Kept, a 640x384 clip of demo weights takes a fifth
less time and the edges of a video a third of it, for about a gigabyte more held (docs/performance.md).
Call it before other threads begin: a thread keeps the arena it once got.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil

# From glibc's malloc.h. One arena, because only the first one may hold blocks above 64 MB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 1024**3  # bytes; blocks above it are mapped as ever
KEPT = 2**31 - 1  # bytes at the heap's end that are not given back; the most mallopt takes


def keep_freed_memory() -> bool:
    """Set the C library up, on Linux with glibc and without a GPU; elsewhere do nothing.

    Returns:
        whether it was done.
    """
    gpu = shutil.which("nvidia-smi") or os.path.exists("/dev/kfd")
    if gpu or "SPACE_ID" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEPT))
    # A list, so that each of them is asked, whatever the first says.
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)

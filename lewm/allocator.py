"""Memory that is freed stays with the process instead of going back to the system and being asked for again.

Where a computation frees and allocates tensors of megabytes all the time, as every step on a CPU does, glibc gives each
back at once, and the system clears every page of the next one: a tenth of the time of a CEM iteration on two cores
(benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of mallopt's parameters in glibc's malloc.h
OWN = ("MALLOC_", "GLIBC_TUNABLES")  # by which the user says what the allocator is to do


def keep_freed() -> bool:
    """Have glibc keep what this process frees; whether it does.

    Not where the environment has settings of the allocator, nor with another C library.
    """
    if any(name.startswith(OWN) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no such library
        return False
    settings = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}  # bytes
    return all(mallopt(name, value) for name, value in settings.items())

"""Memory that is freed stays with the process instead of going back to the system and being asked for again.

Where a computation frees and allocates tensors of megabytes all the time, as every step on a CPU does, glibc gives each
back at once, and the system clears every page of the next one: 80 to 110 ms of processor time in a CEM iteration of the
paper's model (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of mallopt's parameters in glibc's malloc.h
SETTINGS = {
    MMAP_THRESHOLD: 2**25,  # bytes; the most that every glibc takes, and what is larger still goes back
    TRIM_THRESHOLD: 2**31 - 1,
    TOP_PAD: 2**26,
}
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed() -> bool:
    """Have glibc keep what is freed, as long as the process lives; whether it took the settings.

    Memory then stays at its peak, also in workers forked later. Not where the environment has settings of these, nor
    with another C library.
    """
    if any(name in os.environ for name in OWN) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no such library
        return False
    return all([mallopt(name, value) for name, value in SETTINGS.items()])

"""What a machine can do at most, measured: the floors of benchmarks."""

from __future__ import annotations

import statistics
from typing import Any

from alternation import seconds, synchronized


def matrix_rate(device: str = "cpu", dtype: Any = None, side: int = 2048) -> float:
    """Operations a second of a square matrix product, in 10^9: two for each multiplication."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    work = synchronized(device, lambda: a @ b)
    took = [seconds(work) for _ in range(10)]
    return 2 * side**3 / statistics.median(took[2:]) / 1e9


def bandwidth(device: str = "cpu", mebibytes: int = 256) -> float:
    """Bytes a second of a copy, in 10^9: each is read once and written once."""
    import torch

    a = torch.zeros(mebibytes * 2**20, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    work = synchronized(device, lambda: b.copy_(a))
    took = [seconds(work) for _ in range(10)]
    return 2 * a.numel() / statistics.median(took[2:]) / 1e9

"""What a machine can do at most, measured: the floors of benchmarks."""

from __future__ import annotations

import statistics

from alternation import seconds, synchronized


def matrix_rate(device: str = "cpu", precision: str = "fp32", side: int | None = None) -> float:
    """Operations a second of a square matrix product in fp32 or bf16, in 10^9: two for each multiplication."""
    import torch

    side = side or (8192 if device.startswith("cuda") else 2048)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    work = synchronized(device, lambda: a @ b)
    took = [seconds(work) for _ in range(10)]
    return 2 * side**3 / statistics.median(took[2:]) / 1e9


def step_gflop(image: int, patch: int, clips: int, frames: int = 4) -> float:
    """Multiplications and additions of a training step in 10^9: three times those of the forward pass."""
    tokens, dim, depth = (image // patch) ** 2 + 1, 192, 12
    block = tokens * 12 * dim**2 + 2 * tokens**2 * dim
    last = tokens * 2 * dim**2 + 10 * dim**2 + 2 * tokens * dim
    encoder = (tokens - 1) * 3 * patch**2 * dim + (depth - 1) * block + last
    layer = dim * 3 * 1024 + 1024 * dim + 2 * dim * 2048 + 6 * dim**2
    heads = 2 * 2048 * dim
    a_clip = frames * (encoder + heads) + (frames - 1) * (6 * layer + heads)
    return 3 * 2 * clips * a_clip / 1e9


def bandwidth(device: str = "cpu", mebibytes: int = 256) -> float:
    """Bytes a second of a copy, in 10^9: each is read once and written once."""
    import torch

    a = torch.zeros(mebibytes * 2**20, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    work = synchronized(device, lambda: b.copy_(a))
    took = [seconds(work) for _ in range(10)]
    return 2 * a.numel() / statistics.median(took[2:]) / 1e9

"""Weights and inputs drawn by name, the same wherever they are drawn, so that no file has to hold them."""

from __future__ import annotations

import hashlib
from zlib import crc32

import numpy as np

B, T, S, N = 1, 4, 2, 3  # clips, frames, candidates, blocks ahead
SIDE, K, A = 224, 5, 2  # frames, frameskip, actions
ACTION_MEAN, ACTION_STD = (0.25, -0.5), (0.5, 2.0)  # exact in float32


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight or statistic, none of them neutral: gates open, norms uneven, positions large."""
    generator = np.random.Generator(np.random.PCG64(crc32(name.encode())))
    if name.endswith("num_batches_tracked"):
        return np.array(7)
    noise = generator.standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 0.5 + 1.5 * generator.random(shape, dtype=np.float32)
    if name.endswith(("cls_token", "position_embeddings", "pos_embedding")):
        return noise
    if len(shape) > 1:
        return noise / np.float32(np.prod(shape[1:]) ** 0.5)
    return np.float32(name.endswith("weight")) + np.float32(0.2) * noise  # weights of one dimension are a norm's


def drawn_inputs() -> dict[str, np.ndarray]:
    """pixels (b, t, side, side, 3) uint8; raw past (b, t - 2, k, a) and future (b, s, n, k, a) blocks of actions."""
    generator = np.random.Generator(np.random.PCG64(20260319))
    mean, std = np.float32(ACTION_MEAN), np.float32(ACTION_STD)
    actions = {"past": (B, T - 2, K, A), "future": (B, S, N, K, A)}
    return {
        "pixels": generator.integers(0, 256, (B, T, SIDE, SIDE, 3), dtype=np.uint8),
        **{name: mean + std * generator.standard_normal(shape, dtype=np.float32) for name, shape in actions.items()},
    }


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Hash of all names and bytes."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()

"""The episodes that every data set beside this holds, drawn anew: the truth that conversions are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LENGTHS = (12, 9, 15, 10, 14)
SEED = 20260319


def episodes(side: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames (t, side, side, 3) uint8, actions (t, 2) and positions (t, 3) float32 of each episode.

    A white square walks by its actions, row t's from frame t to t + 1. How red a frame is tells its row, how green its
    episode, so that frames of another row or episode differ by far more than a codec's error.
    """
    rng = np.random.default_rng(SEED)
    for number, length in enumerate(LENGTHS):
        action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        moved = np.concatenate([np.zeros((1, 2), np.float32), np.cumsum(action[:-1], axis=0)])
        position = np.clip(side // 2 + moved, 2, side - 10).astype(np.float32)
        frames = np.zeros((length, side, side, 3), np.uint8)
        frames[..., 0] = 15 * np.arange(length)[:, None, None]
        frames[..., 1] = 50 * number
        for frame, (x, y) in zip(frames, position.astype(int), strict=True):
            frame[y : y + 8, x : x + 8] = 255
        yield frames, action, np.concatenate([position, np.full((length, 1), number, np.float32)], axis=1)

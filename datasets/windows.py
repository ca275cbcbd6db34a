"""Which clips an episode holds: pure functions of lengths, frames and frameskip.

A clip of F frames at frameskip k from row t has frames t, t+k, ..., t+(F-1)k and the (F-1)k actions between them. It
fits iff t + (F-1)k + 1 <= T, so the last row's action, which is not a real one, is never used.
"""

from __future__ import annotations

import numpy as np


def clip_rows(num_frames: int, frameskip: int) -> int:
    """Rows that one clip spans."""
    return (num_frames - 1) * frameskip + 1


def num_starts(lengths: np.ndarray, num_frames: int, frameskip: int) -> np.ndarray:
    """Clips that start in each episode: (episodes,) int64."""
    return np.maximum(0, np.asarray(lengths, dtype=np.int64) - clip_rows(num_frames, frameskip) + 1)


def locate(clips: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position in the episode list and start row of each clip number, given clips per episode.

    Clip numbers run through the episodes in order: all starts of the first, then of the second.
    """
    ends = np.cumsum(starts)
    position = np.searchsorted(ends, clips, side="right")
    return position, clips - (ends - starts)[position]


def frame_rows(start: int, num_frames: int, frameskip: int) -> np.ndarray:
    """Rows of a clip's frames."""
    return start + frameskip * np.arange(num_frames)


def action_blocks(actions: np.ndarray, start: int, num_frames: int, frameskip: int) -> np.ndarray:
    """The blocks of actions between a clip's frames: (length, a) -> (num_frames - 1, frameskip, a)."""
    rows = actions[start : start + (num_frames - 1) * frameskip]
    return rows.reshape(num_frames - 1, frameskip, actions.shape[1])

"""Which frames an evaluation looks at, by episode and row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from lewm.datasets.schema import Source
from lewm.errors import UserError


@dataclass(frozen=True)
class Frames:
    """Chosen frames, by episode number and row, and how many there were to choose from."""

    episode: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    available: int

    def __len__(self) -> int:
        return len(self.row)

    def describe(self) -> dict[str, Any]:
        """Counts, and how the frames were chosen."""
        chosen, kept = len(self), len(np.unique(self.episode))
        every = "all frames" if chosen == self.available else f"one of {self.available / max(chosen, 1):.2f} frames"
        return {"episodes": kept, "frames": chosen, "frames_available": self.available, "chosen": every}

    def by_episode(self) -> Iterator[tuple[int, Bool[np.ndarray, " n"]]]:
        """Each episode, and which of the frames are its own."""
        for e in np.unique(self.episode):
            yield int(e), self.episode == e

    def of(self, episodes: Int[np.ndarray, " m"]) -> Frames:
        """Those of some episodes; as many to choose from as there are chosen."""
        kept = np.isin(self.episode, episodes)
        return Frames(self.episode[kept], self.row[kept], int(kept.sum()))

    def before(self, rows: int) -> Frames:
        """The frames that many rows earlier in the same episodes."""
        return Frames(self.episode, self.row - rows, self.available)


def choose_frames(
    lengths: Int[np.ndarray, " e"], episodes: Int[np.ndarray, " m"], max_frames: int, *, first: int = 0
) -> Frames:
    """All frames of the episodes from row `first` on, or `max_frames` of them, spread evenly through all.

    Each is drawn from a stretch of its own: at fixed strides, episodes of equal length would always show the same rows.
    """
    if max_frames < 1:
        raise UserError(f"--max_frames is {max_frames}; it must be at least 1")
    sizes = np.maximum(np.asarray(lengths)[episodes] - first, 0)
    total = int(sizes.sum())
    kept = np.arange(total)
    if total > max_frames:
        edges = np.arange(max_frames + 1) * total // max_frames
        kept = edges[:-1] + (np.random.default_rng(0).random(max_frames) * np.diff(edges)).astype(np.int64)
    ends = np.cumsum(sizes)
    position = np.searchsorted(ends, kept, side="right")
    return Frames(np.asarray(episodes)[position], first + kept - (ends - sizes)[position], total)


def union(chosen: list[Frames]) -> Frames:
    """All frames that occur, each once, by episode and row."""
    pairs = np.unique(np.concatenate([np.stack([f.episode, f.row], axis=1) for f in chosen]), axis=0)
    return Frames(pairs[:, 0], pairs[:, 1], len(pairs))


def few(frames: Frames, num: int) -> Frames:
    """At most `num` of the frames, at even strides."""
    kept = np.arange(min(num, len(frames))) * len(frames) // max(min(num, len(frames)), 1)
    return Frames(frames.episode[kept], frames.row[kept], frames.available)


def read_frames(source: Source, frames: Frames) -> UInt8[np.ndarray, "n h w c"]:
    """Pixels of chosen frames; those of one episode are read together."""
    out = np.empty((len(frames), *source.frame_shape), dtype=np.uint8)
    for e, at in frames.by_episode():
        out[at] = source.frames(e, frames.row[at])
    return out

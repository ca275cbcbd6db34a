"""Episodes in the layouts of other tools, for `lewm convert`: what a reader offers, and which ones there are.

A layout is one file, `from_NAME.py`, with a function `recognises` and a class `Reader`; its name stands in `LAYOUTS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lewm.datasets.schema import Column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.errors import UserError

LAYOUTS = ("lerobot", "lance", "zarr", "minari", "dino_wm", "npz")
KINDS = "fiubSU"  # of columns that shards can hold
WHOLE = 1e-3  # a stride this near to a whole number is one


class Reader(Protocol):
    """Episodes as a layout has them: row t of `action` leads from frame t to t + 1, the last row's is not valid."""

    path: Path
    lengths: np.ndarray  # (episodes,) int64, frames of each
    keys: list[str]
    cameras: list[str]
    columns: dict[str, Column]  # everything but frames
    actions: tuple[str, ...]  # the columns that are actions, as far as the layout says so
    fps: float | None
    lossy: dict[str, str]  # cameras whose frames a codec has already changed, and its name

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        """(len(rows), h, w, c) uint8."""
        ...

    def column(self, name: str, episode: int) -> np.ndarray:
        """(length, ...) in the column's own dtype."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a layout is wanted.

    Args:
        camera: one of several.
        action: columns that together, in this order, are the action; none for what the layout calls so.
        fps: frames a second to keep. The actions between two frames that are kept stand side by side in one row.
    """

    camera: str | None = None
    action: tuple[str, ...] = ()
    fps: float | None = None


class Foreign:
    """See `schema.Source`: what was chosen of a reader's episodes."""

    def __init__(self, reader: Reader, choice: Choice) -> None:
        self.reader, self.path, self.keys = reader, reader.path, list(reader.keys)
        _check_episodes(reader)
        self.camera = _camera(reader, choice.camera)
        self.parts = _action_columns(reader, choice.action)
        self.stride = _stride(reader, choice.fps)
        self.lengths = -(-reader.lengths // self.stride)
        h, w, c = reader.frames(self.camera, 0, np.array([0])).shape[1:]
        self.frame_shape = (h, w, c)
        self.action_dim = sum(_width(reader.columns[name]) for name in self.parts) * self.stride
        kept = {n: c for n, c in reader.columns.items() if c.dtype.kind in KINDS}
        self.left_out = sorted(reader.columns.keys() - kept.keys())
        self.columns = {n: c for n, c in kept.items() if n not in self.parts}
        self.columns["action"] = Column(np.dtype(np.float32), (self.action_dim,))
        self.lossy = reader.lossy.get(self.camera)
        for e in range(len(self.lengths)):
            check_actions(self.actions(e), f"episode {e} ({self.keys[e]}) in {self.path}")
        self._fingerprint: str | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What of the data set was taken, for the manifest."""
        about = {"camera": self.camera, "action_columns": list(self.parts), "rows_per_frame": self.stride}
        return {**about, "lossy": self.lossy} if self.lossy else about

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        frames = self.reader.frames(self.camera, episode, np.asarray(rows) * self.stride)
        if frames.shape[1:] != self.frame_shape:
            raise UserError(
                f"frames {self.camera!r} of episode {episode} ({self.keys[episode]}) in {self.path} are "
                f"{frames.shape[1:]}, those of the first {self.frame_shape}; sizes must agree"
            )
        return frames

    def actions(self, episode: int) -> np.ndarray:
        parts = [self.reader.column(name, episode).astype(np.float32) for name in self.parts]
        joined = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        # Only the last row can lack some of the actions that lead to the next frame, and it leads to none.
        lacking = int(self.lengths[episode]) * self.stride - len(joined)
        joined = np.pad(joined, ((0, lacking), (0, 0)), constant_values=np.nan)
        return joined.reshape(int(self.lengths[episode]), self.action_dim)

    def column(self, name: str, episode: int) -> np.ndarray:
        if name == "action":
            return self.actions(episode)
        if name not in self.columns:
            raise UserError(f"no column {name!r} in {self.path}; it has: {', '.join(sorted(self.columns))}")
        return self.reader.column(name, episode)[:: self.stride]

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self)
        return self._fingerprint


def open_foreign(path: str | Path, choice: Choice) -> Foreign | None:
    """What is at a path, in a layout that one of the readers recognises; None where none does."""
    path = Path(path)
    for name in LAYOUTS:
        layout = import_module(f"lewm.datasets.from_{name}")
        if layout.recognises(path):
            return Foreign(layout.Reader(path), choice)
    return None


def ends_of(ends: np.ndarray, rows: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """First rows and lengths of episodes that lie end to end and end so; UserError unless they fill `rows`."""
    ends = np.asarray(ends)
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
        raise UserError(f"the ends of episodes in {where} must be a list of whole numbers")
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    lengths = ends.astype(np.int64) - starts
    if (lengths < 1).any() or ends[-1] != rows:
        raise UserError(f"the ends of episodes in {where} must rise and end at row {rows}, not {ends[-1]}")
    return starts, lengths


def _check_episodes(reader: Reader) -> None:
    if len(reader.lengths) == 0:
        raise UserError(f"{reader.path} holds no episodes")
    if (reader.lengths < 1).any():
        raise UserError(
            f"episode {reader.keys[int(np.argmin(reader.lengths))]} in {reader.path} has no frames; remove it"
        )
    key, times = Counter(reader.keys).most_common(1)[0]
    if times > 1:
        raise UserError(f"{reader.path} has {times} episodes {key!r}; it is damaged")


def _camera(reader: Reader, asked: str | None) -> str:
    names = sorted(reader.cameras)
    if not names:
        raise UserError(f"no frames in {reader.path}; world models learn from pixels")
    if asked is None and len(names) > 1:
        raise UserError(f"{reader.path} has {len(names)} cameras; say which with --camera: {', '.join(names)}")
    if asked is not None and asked not in names:
        raise UserError(f"no camera {asked!r} in {reader.path}; it has: {', '.join(names)}")
    return asked or names[0]


def _action_columns(reader: Reader, asked: Sequence[str]) -> tuple[str, ...]:
    names = tuple(asked) or reader.actions
    numbers = sorted(name for name, column in reader.columns.items() if column.dtype.kind in "fiub")
    if not names:
        raise UserError(f"{reader.path} does not say what its actions are; say it with --action: {', '.join(numbers)}")
    for name in names:
        if name not in numbers:
            raise UserError(f"no column {name!r} of numbers in {reader.path}; it has: {', '.join(numbers)}")
    return names


def _stride(reader: Reader, fps: float | None) -> int:
    if fps is None:
        return 1
    if reader.fps is None:
        raise UserError(f"{reader.path} does not say its frames a second, so --fps cannot be honoured")
    stride = reader.fps / fps if fps > 0 else 0.0
    if stride < 1 or abs(stride - round(stride)) > WHOLE:
        raise UserError(f"--fps {fps:g}: {reader.path} has {reader.fps:g}; give a whole part of it")
    return round(stride)


def _width(column: Column) -> int:
    return int(np.prod(column.shape, dtype=np.int64))

"""Episodes in the layouts of other tools, for `lewm convert`: what a reader offers, and which ones there are.

A layout is one file, `from_NAME.py`, with a function `recognises` and a class `Reader`; its name stands in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from lewm.datasets.schema import Column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.errors import UserError

LAYOUTS = ("lerobot", "lance", "zarr", "minari", "dino_wm", "npz")
WHOLE = 1e-3  # a stride this near to a whole number is one


class Reader(Protocol):
    """Episodes as a layout has them: row t of `action` leads from frame t to t + 1, the last row's is not valid."""

    path: Path
    lengths: np.ndarray  # (episodes,) int64, frames of each
    keys: list[str]
    cameras: dict[str, tuple[int, int, int]]  # name: (h, w, c)
    columns: dict[str, Column]  # everything but frames
    actions: tuple[str, ...]  # the columns that are actions, as far as the layout says so
    fps: float | None
    lossy: str | None  # the codec that has already changed the frames

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
        fps: frames a second to keep, by leaving rows out with their actions.
    """

    camera: str | None = None
    action: tuple[str, ...] = ()
    fps: float | None = None


class Foreign:
    """See `schema.Source`: what was chosen of a reader's episodes."""

    def __init__(self, reader: Reader, choice: Choice) -> None:
        self.reader, self.path, self.keys = reader, reader.path, list(reader.keys)
        self.camera = _camera(reader, choice.camera)
        self.parts = _action_columns(reader, choice.action)
        self.stride = _stride(reader, choice.fps)
        self.lengths = -(-reader.lengths // self.stride)
        self.frame_shape = reader.cameras[self.camera]
        self.action_dim = sum(_width(reader.columns[name]) for name in self.parts)
        self.columns = {name: c for name, c in reader.columns.items() if name not in self.parts}
        self.columns["action"] = Column(np.dtype(np.float32), (self.action_dim,))
        self.lossy = reader.lossy
        for e in range(len(self.lengths)):
            check_actions(self.actions(e), f"episode {e} ({self.keys[e]}) in {self.path}")
        self._fingerprint: str | None = None

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        return self.reader.frames(self.camera, episode, np.asarray(rows) * self.stride)

    def actions(self, episode: int) -> np.ndarray:
        parts = [self.reader.column(name, episode) for name in self.parts]
        joined = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        return joined[:: self.stride].astype(np.float32)

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


def as_frames(values: np.ndarray, where: str) -> np.ndarray:
    """Frames as (t, h, w, c) uint8 from what tools store: channels first or last, bytes or whole floats of 0 to 255."""
    if values.ndim == 4 and values.shape[-1] not in (1, 3) and values.shape[1] in (1, 3):
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise UserError(f"{where} are of shape {values.shape[1:]}; frames are (h, w, c) or (c, h, w), c being 1 or 3")
    if values.dtype == np.uint8:
        return values
    whole = np.rint(values)
    if values.dtype.kind not in "fiu" or not np.array_equal(values, whole) or whole.min() < 0 or whole.max() > 255:
        raise UserError(
            f"{where} are {values.dtype} from {values.min():g} to {values.max():g}; frames are bytes, or whole numbers "
            "of 0 to 255: scale them back before converting"
        )
    return whole.astype(np.uint8)


def ends_of(ends: np.ndarray, rows: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """First rows and lengths of episodes that lie end to end and end at these rows; UserError unless they fill `rows`."""
    ends = np.asarray(ends)
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
        raise UserError(f"the ends of episodes in {where} must be a list of whole numbers")
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    lengths = ends.astype(np.int64) - starts
    if (lengths < 1).any() or ends[-1] != rows:
        raise UserError(f"the ends of episodes in {where} must rise and end at row {rows}, not {ends[-1]}")
    return starts, lengths


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
    numbers = sorted(name for name, column in reader.columns.items() if column.dtype.kind in "fiu")
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

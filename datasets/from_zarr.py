"""Replay buffers in zarr, as diffusion policies are trained from: `data/` row by row, `meta/episode_ends`.

Folders and zip files; zarr's formats 2 and 3. Frames are the arrays of `data/` that look like pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lewm.datasets.foreign import as_frames, ends_of
from lewm.datasets.schema import Column
from lewm.errors import UserError

MARKS = (".zgroup", "zarr.json")
ENDS = "meta/episode_ends"


def recognises(path: Path) -> bool:
    """Whether a replay buffer is there, by its files alone."""
    if path.is_file():
        return path.name.endswith((".zarr.zip", ".zarr"))
    return (path / ENDS).is_dir() and any((path / mark).exists() for mark in MARKS)


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None
    lossy: str | None = None

    def __init__(self, path: Path) -> None:
        self.path, self._arrays = path, _arrays(path)
        ends = self._arrays.pop(ENDS, None)
        data = {name.removeprefix("data/"): a for name, a in self._arrays.items() if name.startswith("data/")}
        if ends is None or not data:
            raise UserError(f"{path} is no replay buffer: it needs {ENDS} and arrays under data/")
        rows = next(iter(data.values())).shape[:1]
        for name, array in data.items():
            if array.ndim == 0 or array.shape[:1] != rows:
                raise UserError(f"data/{name} in {path} is {array.shape}, others have {rows} rows; it is damaged")
        self._starts, self.lengths = ends_of(_read(ends, path), rows[0], str(path))
        self._data = data
        pictures = [n for n, a in data.items() if a.ndim == 4 and (a.shape[-1] in (1, 3) or a.shape[1] in (1, 3))]
        self.cameras = {name: self._one_frame(name) for name in pictures}
        self.columns = {n: Column(np.dtype(a.dtype), a.shape[1:]) for n, a in data.items() if n not in pictures}
        self.actions = ("action",) if "action" in self.columns else ()
        self.keys = [f"{path.stem}:{e}" for e in range(len(self.lengths))]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        low = int(self._starts[episode])
        first, last = int(rows.min()), int(rows.max())
        values = _read(self._data[camera], self.path, slice(low + first, low + last + 1))
        return as_frames(values[rows - first], f"frames {camera!r} of episode {episode} in {self.path}")

    def column(self, name: str, episode: int) -> np.ndarray:
        low = int(self._starts[episode])
        return _read(self._data[name], self.path, slice(low, low + int(self.lengths[episode])))

    def _one_frame(self, name: str) -> tuple[int, int, int]:
        h, w, c = as_frames(_read(self._data[name], self.path, slice(0, 1)), f"frames {name!r} in {self.path}").shape[1:]
        return h, w, c


def _arrays(path: Path) -> dict[str, Any]:
    try:
        import zarr
    except ImportError as error:
        raise UserError(f"{path} needs zarr; pip install 'lewm[zarr]'") from error
    try:
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        group = zarr.open_group(store, mode="r")
        return {name: member for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array)}
    except Exception as error:  # of a damaged store, whatever its parser meets
        raise UserError(f"not a readable zarr store: {path} ({_said(error)})") from error


def _read(array: Any, path: Path, rows: slice = slice(None)) -> np.ndarray:
    try:
        return np.asarray(array[rows])
    except Exception as error:  # of damaged chunks, whatever the codec meets
        raise UserError(f"{array.name} in {path} cannot be read ({_said(error)}); the file is damaged") from error


def _said(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

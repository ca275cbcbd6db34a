"""Replay buffers in zarr, as diffusion policies are trained from: `data/` row by row, `meta/episode_ends`.

Folders and zip files; zarr's formats 2 and 3. Frames are the arrays of `data/` that look like pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lewm.datasets.foreign import ends_of
from lewm.datasets.hdf5 import first_line
from lewm.datasets.pictures import as_frames, is_frames
from lewm.datasets.schema import Column
from lewm.errors import UserError

MARKS = (".zgroup", "zarr.json")
ENDS, ACTION = "meta/episode_ends", "action"


def recognises(path: Path) -> bool:
    """Whether a replay buffer is there, by its files alone."""
    if path.is_file():
        return path.name.endswith((".zarr.zip", ".zarr"))
    return (
        path.is_dir() and (path.suffix == ".zarr" or (path / ENDS).is_dir()) and any((path / m).exists() for m in MARKS)
    )


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None
    lossy: dict[str, str] = {}

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
        self._data, self._whole = data, set[str]()  # the latter names cameras that lack no chunk
        pictures = [name for name, array in data.items() if is_frames(array.shape)]
        if ACTION in data:
            _check_chunks(data[ACTION], path)
        self.cameras = pictures
        self.columns = {n: Column(np.dtype(a.dtype), a.shape[1:]) for n, a in data.items() if n not in pictures}
        self.actions = (ACTION,) if ACTION in self.columns else ()
        self.keys = [f"{path.stem}:{e}" for e in range(len(self.lengths))]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if camera not in self._whole:
            _check_chunks(self._data[camera], self.path)
            self._whole.add(camera)
        low = int(self._starts[episode])
        first, last = int(rows.min()), int(rows.max())
        values = _read(self._data[camera], self.path, slice(low + first, low + last + 1))
        return as_frames(values[rows - first], f"frames {camera!r} of episode {episode} in {self.path}")

    def column(self, name: str, episode: int) -> np.ndarray:
        low = int(self._starts[episode])
        return _read(self._data[name], self.path, slice(low, low + int(self.lengths[episode])))


def _arrays(path: Path) -> dict[str, Any]:
    try:
        import zarr
        from zarr.storage import ZipStore
    except ImportError as error:
        raise UserError(f"{path} is read with zarr: pip install 'lewm[zarr]'") from error
    try:
        store = ZipStore(path, mode="r") if path.is_file() else path
        group = zarr.open_group(store, mode="r")
        arrays = {name: member for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array)}
        codecs = {name: set(_names(array.metadata.to_dict())) for name, array in arrays.items()}
    except Exception as error:  # of a damaged store, whatever its parser meets
        raise UserError(f"not a readable zarr store: {path} ({first_line(error)})") from error
    for name, named in codecs.items():
        if "pickle" in named:
            raise UserError(f"{name} in {path} is pickled, which may run code; it is not read: write it as numbers")
    return arrays


def _names(about: Any) -> Iterator[str]:
    """The names of all codecs in an array's description."""
    if isinstance(about, dict):
        yield from (str(about[key]) for key in ("id", "name") if key in about)
        about = list(about.values())
    if isinstance(about, (list, tuple)):
        for part in about:
            yield from _names(part)


def _check_chunks(array: Any, path: Path) -> None:
    """UserError where chunks are missing: zarr would read them as zeros."""
    try:
        missing = array.nchunks - array.nchunks_initialized
    except Exception as error:  # of a damaged store, whatever its parser meets
        raise UserError(f"{array.name} in {path} cannot be read ({first_line(error)}); it is damaged") from error
    if missing:
        raise UserError(
            f"{missing} of {array.nchunks} chunks of {array.name} in {path} are missing and would be read as zeros; "
            "copy it again, or, where it holds zeros alone, write it with `write_empty_chunks`"
        )


def _read(array: Any, path: Path, rows: slice = slice(None)) -> np.ndarray:
    try:
        return np.asarray(array[rows])
    except Exception as error:  # of damaged chunks, whatever the codec meets
        raise UserError(f"{array.name} in {path} cannot be read ({first_line(error)}); it is damaged") from error

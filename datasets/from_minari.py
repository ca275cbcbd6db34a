"""Minari's HDF5 data sets: `data/main_data.hdf5` with a group an episode, `data/metadata.json` beside it.

An episode of n steps has n + 1 observations and n actions. Pictures are JPEG files unless the set was made otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lewm.datasets.filters import require_filters
from lewm.datasets.hdf5 import HDF5_RAISES, first_line, said_of
from lewm.datasets.pictures import JPEG_MAGIC, as_frames, decode_pictures, is_frames
from lewm.datasets.schema import Column
from lewm.errors import UserError

FILE, ABOUT = "main_data.hdf5", "metadata.json"


def recognises(path: Path) -> bool:
    """Whether a data set of Minari is there: its folder, or the one that holds the file."""
    return path.is_dir() and _folder(path) is not None


def _folder(path: Path) -> Path | None:
    if (path / "data" / ABOUT).exists():
        return path / "data"
    return next((folder for folder in (path / "data", path) if (folder / FILE).exists()), None)


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None

    def __init__(self, path: Path) -> None:
        folder = _folder(path)
        assert folder is not None, "recognised"
        self.path, self._file = path, folder / FILE
        about = _about(folder / ABOUT)
        if not self._file.exists():
            raise UserError(f"{folder} has no {FILE}; of Minari's data sets those in HDF5 are read, not those in Arrow")
        with said_of(self._file):
            self._read(about, str(about.get("dataset_id", path.name)))
        self.lossy = {camera: "jpeg" for camera in self._encoded}

    def _read(self, about: dict[str, Any], name: str) -> None:
        with _opened(self._file) as file:
            numbers = sorted(int(key.removeprefix("episode_")) for key in map(str, file) if key.startswith("episode_"))
            if not numbers:
                raise UserError(f"{self._file} holds no episodes")
            if about.get("total_episodes", len(numbers)) != len(numbers):
                raise UserError(
                    f"{self._file} holds {len(numbers)} episodes, {ABOUT} says {about['total_episodes']}; copy it again"
                )
            first = _leaves(file, numbers[0])
            for leaf, dataset in first.items():
                require_filters(dataset, f"{leaf!r} of {self._file}")
            self._encoded = {n for n, d in first.items() if n.startswith("observations") and _is_encoded(d)}
            self._episodes = numbers
            self.keys = [f"{name}:{number}" for number in numbers]
            self.cameras, self.columns = list[str](), dict[str, Column]()
            for leaf, dataset in first.items():
                if leaf in self._encoded or (leaf.startswith("observations") and is_frames(dataset.shape)):
                    self.cameras.append(leaf)
                elif dataset.dtype.kind in "fiub" and dataset.ndim:
                    kept = leaf.startswith("observations")
                    self.columns[leaf] = Column(dataset.dtype if kept else _padded(dataset.dtype), dataset.shape[1:])
            observed = next((leaf for leaf in first if leaf.startswith("observations")), None)
            if observed is None:
                raise UserError(f"the episodes of {self._file} hold no observations")
            self.lengths = np.array([len(_leaf(file, n, observed)) for n in numbers], dtype=np.int64)
            self._check(file, first)
        self.actions = tuple(sorted(leaf for leaf in self.columns if leaf.split("/")[0] == "actions"))

    def _check(self, file: h5py.File, first: dict[str, h5py.Dataset]) -> None:
        for number, length in zip(self._episodes, self.lengths, strict=True):
            leaves = _leaves(file, number)
            for leaf in (*self.cameras, *self.columns):
                if leaf not in leaves:
                    raise UserError(f"episode {number} of {self._file} has no {leaf!r}, the first one has")
                room, rows = leaf.split("/")[0], len(leaves[leaf])
                wanted = {"observations": (length,), "infos": (length, length - 1)}.get(room, (length - 1,))
                if rows not in wanted:
                    raise UserError(
                        f"{leaf!r} of episode {number} in {self._file} has {rows} rows, not {wanted[0]}; it is damaged"
                    )

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        number = self._episodes[episode]
        with said_of(self._file, f"episode {number}, {camera!r}"), _opened(self._file) as file:
            return self._decoded(_leaf(file, number, camera), camera, rows, number)

    def column(self, name: str, episode: int) -> np.ndarray:
        number, length = self._episodes[episode], int(self.lengths[episode])
        with said_of(self._file, f"episode {number}, {name!r}"), _opened(self._file) as file:
            values = _leaf(file, number, name)[:]
        if name.startswith("observations"):
            return values
        out = np.full((length, *values.shape[1:]), np.nan, dtype=_padded(values.dtype))
        out[: len(values)] = values[:length]
        return out

    def _decoded(self, dataset: h5py.Dataset, leaf: str, rows: np.ndarray, number: int) -> np.ndarray:
        where = f"{leaf!r} of episode {number} in {self._file}"
        stored = [dataset[int(row)] for row in rows]
        if leaf not in self._encoded:
            return as_frames(np.stack(stored), f"frames {where}")
        return decode_pictures([np.asarray(one, np.uint8).tobytes() for one in stored], where)


def _about(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not readable JSON: {path}; the data set is damaged") from error
    return found if isinstance(found, dict) else {}


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except HDF5_RAISES as error:
        raise UserError(f"not a readable HDF5 file: {path} ({first_line(error)})") from error


def _leaf(file: h5py.File, number: int, name: str) -> h5py.Dataset:
    found = file[f"episode_{number}/{name}"]
    if not isinstance(found, h5py.Dataset):
        raise TypeError(f"episode_{number}/{name} is no array")
    return found


def _leaves(file: h5py.File, number: int) -> dict[str, h5py.Dataset]:
    group, found = file[f"episode_{number}"], {}
    if not isinstance(group, h5py.Group):
        raise TypeError(f"episode_{number} is no group")
    group.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return dict(sorted(found.items()))


def _is_encoded(dataset: h5py.Dataset) -> bool:
    """Whether a row is a JPEG file: bytes that begin as one does."""
    if h5py.check_vlen_dtype(dataset.dtype) is None and (dataset.dtype != np.uint8 or dataset.ndim != 2):
        return False
    return len(dataset) > 0 and bytes(np.asarray(dataset[0], np.uint8)[:2]) == JPEG_MAGIC


def _padded(dtype: np.dtype) -> np.dtype:
    """A type in which a row can be missing."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)

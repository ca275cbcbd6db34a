"""Episodes in one HDF5 file with flat columns, as stable-worldmodel writes them; also `/` in names, i.e. groups.

Every column has one row per step, episodes end to end; `ep_len` and `ep_offset` have one row per episode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lewm.datasets.filters import require_filters
from lewm.datasets.schema import Column, require_column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.errors import UserError

BOOKKEEPING = ("ep_len", "ep_offset")
SLACK = 64 * 2**20  # bytes; a smaller column is never too large for its file
DENSEST = 2**16  # times: frames of one colour, compressed, are not smaller than that
# What h5py raises of damaged files, beside OSError, depends on where they are damaged.
HDF5_RAISES = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, MemoryError)


class HDF5Source:
    """See `schema.Source`. The file handle is opened per process and never pickled."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: h5py.File | None = None
        self._owner = os.getpid()
        with said_of(self.path):
            self._read()
        for e in range(len(self.lengths)):
            check_actions(self.actions(e), f"episode {e} in {self.path}")
        self._fingerprint: str | None = None

    def _read(self) -> None:
        datasets = _datasets(self._open())
        for name in ("pixels", "action", *BOOKKEEPING):
            if name not in datasets:
                raise UserError(
                    f"no column {name!r} in {self.path}; it has: {', '.join(sorted(datasets)) or 'nothing'}"
                )
        for name, dataset in datasets.items():
            check_size(dataset, f"column {name!r} of {self.path}")
        self.lengths, self._offsets = _episodes(datasets, self.path)
        _check_frames(datasets["pixels"], self.path)
        self.frame_shape: tuple[int, int, int] = datasets["pixels"].shape[1:]
        skip = ("pixels", *BOOKKEEPING)
        self.columns = {n: _column(d) for n, d in datasets.items() if n not in skip}
        self._actions = _read_actions(datasets["action"], self.path)
        self.action_dim = self._actions.shape[1]
        self.keys = self._keys()

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.frame_shape), dtype=np.uint8)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for at, end in pairwise([*starts, len(rows)]):  # runs of rows: far faster than h5py's strided or fancy reads
            try:
                self._read_run(episode, rows, at, end, out)
            except UserError:  # which of them?
                for i in range(at, end):
                    self._read_run(episode, rows, i, i + 1, out)
        return out

    def _read_run(self, episode: int, rows: np.ndarray, at: int, end: int, out: np.ndarray) -> None:
        """Read the frames of rows[at:end], which follow one another, into out[at:end]."""
        low = int(self._offsets[episode] + rows[at])
        with said_of(self.path, f"episode {episode} ({self.keys[episode]}), frame {rows[at]}"):
            self._open()["pixels"].read_direct(out, np.s_[low : low + end - at], np.s_[at:end])  # type: ignore[union-attr]

    def actions(self, episode: int) -> np.ndarray:
        return self._actions[self._rows(episode)]

    def column(self, name: str, episode: int) -> np.ndarray:
        require_column(self, name)
        with said_of(self.path, f"episode {episode} ({self.keys[episode]}), column {name!r}"):
            return self._open()[name][self._rows(episode)]  # type: ignore[index]

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self)
        return self._fingerprint

    def _rows(self, episode: int) -> slice:
        return slice(int(self._offsets[episode]), int(self._offsets[episode] + self.lengths[episode]))

    def _keys(self) -> list[str]:
        if "id" not in self.columns:
            return [f"{self.path.stem}:{e}" for e in range(len(self.lengths))]
        ids = self._open()["id"][:]  # type: ignore[index]
        return [str(ids[offset]) for offset in self._offsets]  # type: ignore[index]

    def _open(self) -> h5py.File:
        if self._handle is None or self._owner != os.getpid():  # a forked worker opens its own
            self._owner = os.getpid()
            try:
                self._handle = h5py.File(self.path, "r")
            except HDF5_RAISES as error:
                raise UserError(f"not a readable HDF5 file: {self.path} ({first_line(error)})") from error
            for name, dataset in _datasets(self._handle).items():  # a spawned worker has to register filters too
                require_filters(dataset, f"column {name!r} of {self.path}")
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


@contextmanager
def said_of(path: Path, part: str = "") -> Iterator[None]:
    """What the library says of damage, as an error that names file and part."""
    try:
        yield
    except UserError:
        raise
    except HDF5_RAISES as error:
        where = f"{part} of {path}" if part else str(path)
        raise UserError(f"{where} cannot be read ({first_line(error)}); the file is damaged: restore it") from error


def first_line(error: BaseException) -> str:
    """What an error of a library says, without the lines that it adds to it."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def check_size(dataset: h5py.Dataset, where: str) -> None:
    """UserError where a data set declares far more bytes than the file holds for it: its shape is damaged."""
    declared, held = dataset.nbytes, dataset.id.get_storage_size()
    densest = DENSEST if dataset.id.get_create_plist().get_nfilters() else 1
    if declared > SLACK and declared > held * densest:
        raise UserError(
            f"{where} is declared {dataset.shape} {dataset.dtype}, {declared} bytes, of which the file holds {held}: "
            "it is damaged or was never filled; restore it"
        )


def _column(dataset: h5py.Dataset) -> Column:
    base, shape = dataset.dtype.subdtype or (dataset.dtype, ())  # a column may be of an array type
    return Column(base, dataset.shape[1:] + shape)


def _datasets(handle: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    handle.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def _episodes(datasets: dict[str, h5py.Dataset], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and offsets, once they are known to agree with each other and with every column."""
    for name in BOOKKEEPING:
        if datasets[name].ndim != 1 or datasets[name].dtype.kind not in "iu":
            raise UserError(f"{name} of {path} must be one whole number per episode, it is {datasets[name].dtype}")
    lengths, offsets = (np.asarray(datasets[name][:], dtype=np.int64) for name in BOOKKEEPING)
    if len(lengths) == 0:
        raise UserError(f"{path} holds no episodes")
    if lengths.shape != offsets.shape or lengths.ndim != 1 or (lengths < 1).any():
        raise UserError(f"ep_len and ep_offset of {path} must be one positive length and one offset per episode")
    expected = np.cumsum(lengths) - lengths
    if (offsets != expected).any():
        e = int(np.argmax(offsets != expected))
        raise UserError(
            f"ep_offset disagrees with ep_len in {path}: episode {e} should start at row {expected[e]}, "
            f"the file says {offsets[e]}; write the file again"
        )
    for name, column in datasets.items():
        if name not in BOOKKEEPING and (column.ndim == 0 or len(column) != lengths.sum()):
            rows = column.shape[0] if column.ndim else "no"
            raise UserError(f"column {name!r} of {path} has {rows} rows, its episodes have {lengths.sum()} together")
    return lengths, offsets


def _check_frames(pixels: h5py.Dataset, path: Path) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise UserError(
            f"`pixels` of {path} must be uint8 frames of one size, (rows, h, w, c); it is {pixels.dtype} "
            f"{pixels.shape}: ragged or already normalised frames are not read"
        )


def _read_actions(action: h5py.Dataset, path: Path) -> np.ndarray:
    if action.ndim != 2 or action.dtype.kind not in "fiu":
        raise UserError(f"`action` of {path} must be numbers of shape (rows, a); it is {action.dtype} {action.shape}")
    return action[:].astype(np.float32)

"""A folder with one npz file an episode, or one folder of pictures an episode beside its npz file.

    DATA/000.npz            pixels (t, h, w, c), action (t, a) or (t - 1, a), and any other columns (t, ...)
    DATA/000/0000.png ...   pictures in the order of their numbers, where 000.npz has no pixels

Files are read without pickle. Names of files are the keys of episodes.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lewm.datasets.hdf5 import first_line
from lewm.datasets.npy import NUMPY_RAISES
from lewm.datasets.pictures import as_frames, decode_pictures, is_frames
from lewm.datasets.schema import Column
from lewm.datasets.video import images_of, natural
from lewm.errors import UserError

ACTION, INDEX = "action", ".idx.npz"  # the latter ends the names of a shard's index
NPZ_RAISES = (*NUMPY_RAISES, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def recognises(path: Path) -> bool:
    """Whether a folder holds npz files other than the indexes of shards."""
    return path.is_dir() and any(not file.name.endswith(INDEX) for file in path.glob("*.npz"))


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None

    def __init__(self, path: Path) -> None:
        self.path, self._files = path, sorted(path.glob("*.npz"), key=natural)
        self.keys = [file.stem for file in self._files]
        first = _arrays(self._files[0])
        held = sorted(name for name, values in first.items() if is_frames(values.shape))
        pictures = [] if held else _pictures(self._files[0])
        if not held and not pictures:
            raise UserError(
                f"{self._files[0]} has no frames (t, h, w, c), and beside it there is no folder of pictures"
            )
        self._held = held
        self.lengths = np.array([self._length(file, set(first)) for file in self._files], dtype=np.int64)
        self.columns = {n: Column(_type(n, a), a.shape[1:]) for n, a in first.items() if n not in held}
        self.actions = (ACTION,) if ACTION in self.columns else ()
        self.lossy = {"pixels": "jpeg"} if pictures and pictures[0].suffix.lower() != ".png" else {}
        self.cameras = held or ["pixels"]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        file = self._files[episode]
        if self._held:
            return as_frames(_arrays(file, camera)[camera][rows], f"frames {camera!r} of {file}")
        pictures = _pictures(file)
        return decode_pictures((_content(pictures[int(row)]) for row in rows), str(file.with_suffix("")))

    def column(self, name: str, episode: int) -> np.ndarray:
        values, length = _arrays(self._files[episode], name)[name], int(self.lengths[episode])
        if name != ACTION:
            return values
        out = np.full((length, *values.shape[1:]), np.nan, dtype=_type(name, values))
        out[: len(values)] = values
        return out

    def _length(self, file: Path, names: set[str]) -> int:
        """Frames of an episode, once all its columns are known to be as long."""
        arrays = _arrays(file)
        if set(arrays) != names:
            raise UserError(f"{file} holds {', '.join(sorted(arrays))}; the first file {', '.join(sorted(names))}")
        length = len(arrays[self._held[0]]) if self._held else len(_pictures(file))
        for name, values in arrays.items():
            allowed = (length, length - 1) if name == ACTION else (length,)
            if values.ndim == 0 or len(values) not in allowed:
                raise UserError(f"{name!r} of {file} is of shape {values.shape}; the episode has {length} frames")
        return length


def _arrays(file: Path, name: str | None = None) -> dict[str, np.ndarray]:
    """All arrays of a file, or one."""
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as stored:
            return {n: stored[n] for n in ([name] if name else stored.files)}
    except NPZ_RAISES as error:
        raise UserError(f"not a readable npz file: {file} ({first_line(error)}); nothing pickled is read") from error


def _pictures(file: Path) -> list[Path]:
    folder = file.with_suffix("")
    return images_of(folder) if folder.is_dir() else []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _type(name: str, values: np.ndarray) -> np.dtype:
    """A type in which the last action can be missing."""
    return values.dtype if name != ACTION or values.dtype.kind == "f" else np.dtype(np.float64)

"""A folder with one npz file an episode, or one folder of pictures an episode beside its npz file.

    DATA/000.npz            pixels (t, h, w, c), action (t, a) or (t - 1, a), and any other columns (t, ...)
    DATA/000/0000.png ...   pictures in the order of their names, where 000.npz has no pixels

Files are read without pickle. Names of files are the keys of episodes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lewm.datasets.foreign import as_frames
from lewm.datasets.schema import Column
from lewm.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
LOSSY = (".jpg", ".jpeg")


def recognises(path: Path) -> bool:
    """Whether a folder holds npz files; a folder of shards holds none."""
    return path.is_dir() and any(path.glob("*.npz"))


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None

    def __init__(self, path: Path) -> None:
        self.path, self._files = path, sorted(path.glob("*.npz"))
        self.keys = [file.stem for file in self._files]
        first = self._arrays(0)
        self._held = {n for n, a in first.items() if a.ndim == 4}  # frames inside the file
        pictures = self._pictures(0)
        if not self._held and not pictures:
            raise UserError(f"{self._files[0]} has no frames (t, h, w, c), and beside it there is no folder of pictures")
        self._lengths_of(pictures != [])
        where = f"frames of {self._files[0]}"
        self.cameras: dict[str, tuple[int, int, int]] = {}
        for name in sorted(self._held):
            h, w, c = as_frames(first[name][:1], where).shape[1:]
            self.cameras[name] = (h, w, c)
        if not self._held:
            h, w, c = self._opened(pictures[0]).shape
            self.cameras["pixels"] = (h, w, c)
        self.columns = {n: Column(_type(n, a), a.shape[1:]) for n, a in first.items() if n not in self._held}
        self.actions = ("action",) if "action" in self.columns else ()
        self.lossy = "jpeg" if not self._held and pictures[0].suffix.lower() in LOSSY else None

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if self._held:
            return as_frames(self._arrays(episode)[camera][rows], f"frames {camera!r} of {self._files[episode]}")
        pictures = self._pictures(episode)
        return np.stack([self._opened(pictures[int(row)]) for row in rows])

    def column(self, name: str, episode: int) -> np.ndarray:
        values, length = self._arrays(episode)[name], int(self.lengths[episode])
        if name != "action":
            return values
        out = np.full((length, *values.shape[1:]), np.nan, dtype=_type(name, values))
        out[: len(values)] = values
        return out

    def _lengths_of(self, pictures: bool) -> None:
        names, lengths = None, []
        for e, file in enumerate(self._files):
            arrays = self._arrays(e)
            names = names or set(arrays)
            if set(arrays) != names:
                raise UserError(f"{file} has {sorted(arrays)}, the first file {sorted(names)}")
            length = len(self._pictures(e)) if pictures and not self._held else len(arrays[min(self._held)])
            for name, values in arrays.items():
                allowed = (length, length - 1) if name == "action" else (length,)
                if values.ndim == 0 or len(values) not in allowed:
                    raise UserError(f"{name!r} of {file} is {values.shape}; the episode has {length} frames")
            lengths.append(length)
        self.lengths = np.array(lengths, dtype=np.int64)

    def _arrays(self, episode: int) -> dict[str, np.ndarray]:
        try:
            with np.load(self._files[episode], allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"not a readable npz file: {self._files[episode]} ({error})") from error

    def _pictures(self, episode: int) -> list[Path]:
        folder = self._files[episode].with_suffix("")
        return sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES) if folder.is_dir() else []

    def _opened(self, path: Path) -> np.ndarray:
        try:
            picture = np.asarray(Image.open(path))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"not a readable picture: {path}") from error
        return as_frames(picture[None, ..., None] if picture.ndim == 2 else picture[None], str(path))[0]


def _type(name: str, values: np.ndarray) -> np.dtype:
    return values.dtype if name != "action" or values.dtype.kind == "f" else np.dtype(np.float64)

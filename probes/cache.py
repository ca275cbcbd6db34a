"""Features computed earlier, kept beside the run: one file for each kind of features and data set."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lewm import __version__
from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.paths import make_folder, written_atomically
from lewm.probes.frames import Frames

FORMAT = 1  # to be raised when the same weights give other features of the same frames


@dataclass(frozen=True)
class Stored:
    """Features of frames, sorted by episode and row, each frame once."""

    frames: Frames
    values: Float[np.ndarray, "n d"]


NOTHING = Stored(Frames(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0), np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class Cache:
    """Features by key (what made them, and their name) of the frames of one data set; without a folder nothing is kept.

    The file's name is a hash of the key, the data's `identity`, and the versions of what computes features. It can be
    deleted at any time.
    """

    folder: Path | None
    data: str

    def path(self, key: str) -> Path | None:
        """The file of a key."""
        if self.folder is None:
            return None
        parts = [str(FORMAT), __version__, version("torch"), version("timm"), self.data, key]
        return self.folder / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.npz"

    def load(self, key: str) -> Stored:
        """What is stored under a key; nothing of a file that is missing or damaged."""
        path = self.path(key)
        if path is None or not path.is_file():
            return NOTHING
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                frames, values = Frames(file["episode"], file["row"], 0), file["values"]
            if not len(frames.episode) == len(frames.row) == len(values):
                raise ValueError("columns of different lengths")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} is damaged and is made anew ({error})", stacklevel=2)
            return NOTHING
        return Stored(frames, values)

    def add(self, key: str, stored: Stored, new: Stored) -> None:
        """Keep what was stored and what is new, each frame once; where that cannot be written, a warning says so."""
        path = self.path(key)
        if path is None:
            return
        pairs = [np.stack([s.frames.episode, s.frames.row], axis=1) for s in (stored, new)]
        both, kept = np.unique(np.concatenate(pairs), axis=0, return_index=True)
        values = np.concatenate([stored.values.reshape(len(stored.frames), new.values.shape[1]), new.values])[kept]
        try:
            make_folder(path.parent)
            with written_atomically(path) as temporary, temporary.open("wb") as file:
                np.savez(file, episode=both[:, 0], row=both[:, 1], values=values)
        except (OSError, UserError) as error:
            warnings.warn(f"computed features are not kept: {error}", stacklevel=2)


def identity(source: Source) -> str:
    """What tells a source from every other and from its own earlier state: content's fingerprint, sizes, times.

    The fingerprint looks at some frames of each episode only; a file that was changed has another size or time.
    """
    files = sorted(p for p in source.path.rglob("*") if p.is_file()) if source.path.is_dir() else [source.path]
    found = hashlib.sha256(source.fingerprint().encode())
    for path in files:
        about = path.stat()
        found.update(f"{path.name}:{about.st_size}:{about.st_mtime_ns}\n".encode())
    return found.hexdigest()

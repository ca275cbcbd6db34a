"""Features computed earlier, kept beside the run: one file for each data set and reader (a model, or a control)."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lewm import __version__
from lewm.paths import make_folder, written_atomically
from lewm.probes.frames import Frames

NOTHING = Frames(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0)
Features = dict[str, Float[np.ndarray, "n _"]]


@dataclass(frozen=True)
class Cache:
    """Features by reader, of the frames of one data set; a cache without a folder keeps nothing.

    The file's name is a hash of the reader's key, the data's fingerprint and the library's version, so nothing in it
    can be out of date; it can be deleted at any time.
    """

    folder: Path | None
    fingerprint: str

    def path(self, key: str) -> Path | None:
        """The file of a reader."""
        if self.folder is None:
            return None
        name = hashlib.sha256("\n".join([__version__, self.fingerprint, key]).encode()).hexdigest()[:32]
        return self.folder / f"{name}.npz"

    def load(self, key: str) -> tuple[Frames, Features]:
        """Stored frames, sorted, and their features; none of a file that is missing or damaged."""
        path = self.path(key)
        if path is None or not path.is_file():
            return NOTHING, {}
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
            frames = Frames(stored.pop("episode"), stored.pop("row"), 0)
            if any(len(values) != len(frames) for values in (frames.episode, *stored.values())):
                raise ValueError("columns of different lengths")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} is damaged and is made anew ({error})", stacklevel=2)
            return NOTHING, {}
        return frames, {name.removeprefix("feature:"): values for name, values in stored.items()}

    def add(self, key: str, stored: Frames, features: Features, new: Frames, computed: Features) -> None:
        """Keep what was stored and what is new; where both have a frame they agree, and it is kept once."""
        path = self.path(key)
        if path is None:
            return
        episode, row = (np.concatenate(pair) for pair in ((stored.episode, new.episode), (stored.row, new.row)))
        kept = np.unique(np.stack([episode, row], axis=1), axis=0, return_index=True)[1]
        arrays = {"episode": episode[kept], "row": row[kept]}
        for name, values in computed.items():
            both = np.concatenate([features[name], values]) if name in features else values
            arrays[f"feature:{name}"] = both[kept]
        make_folder(path.parent)
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

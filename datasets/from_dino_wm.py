"""DINO-WM's folders: padded tensors of actions and states, and frames of each episode in a file of its own.

    states.pth, velocities.pth ...   (episodes, longest, n)
    rel_actions.pth or actions.pth   (episodes, longest, a)
    obses/episode_000.mp4 or .pth    frames

Lengths are those of the frames: the file that lists them is a pickle, which nothing here loads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm.datasets.foreign import as_frames
from lewm.datasets.schema import Column
from lewm.datasets.video import frames_of, read_frames
from lewm.errors import UserError

FRAMES, ACTIONS = "obses", ("rel_actions", "actions", "abs_actions")  # the first that is there
EPISODE = re.compile(r"episode_(\d+)\.(mp4|pth)")


def recognises(path: Path) -> bool:
    """Whether frames of episodes lie beside tensors of actions."""
    return (path / FRAMES).is_dir() and any((path / f"{name}.pth").exists() for name in ACTIONS)


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        numbered = {int(m[1]): file for file in (path / FRAMES).iterdir() if (m := EPISODE.fullmatch(file.name))}
        if not numbered:
            raise UserError(f"{path / FRAMES} holds no episode_000.mp4 or .pth")
        if sorted(numbered) != list(range(len(numbered))):
            lost = next(n for n in range(len(numbered)) if n not in numbered)
            raise UserError(f"{path / FRAMES} has no frames of episode {lost}; copy it again")
        self._files = [numbered[n] for n in range(len(numbered))]
        self._tensors = {file.stem: _tensor(file) for file in sorted(path.glob("*.pth"))}
        self._tensors = {name: values for name, values in self._tensors.items() if values.ndim == 3}
        self.lengths = np.array([_length(file) for file in self._files], dtype=np.int64)
        for name, values in self._tensors.items():
            if len(values) < len(self._files) or values.shape[1] < self.lengths.max() - 1:
                raise UserError(
                    f"{path / name}.pth is {values.shape}, there are {len(self._files)} episodes of at most "
                    f"{self.lengths.max()} frames: they do not belong together"
                )
        self.columns = {name: Column(values.dtype, values.shape[2:]) for name, values in self._tensors.items()}
        self.actions = next(((name,) for name in ACTIONS if name in self.columns), ())
        self.keys = [f"{path.name}:{e}" for e in range(len(self._files))]
        self.lossy = "video" if self._files[0].suffix == ".mp4" else None
        self._kept: tuple[int, np.ndarray] | None = None
        h, w, c = self.frames("pixels", 0, np.array([0])).shape[1:]
        self.cameras = {"pixels": (h, w, c)}

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if self._kept is None or self._kept[0] != episode:
            file = self._files[episode]
            values = read_frames(file) if file.suffix == ".mp4" else as_frames(_tensor(file), f"frames of {file}")
            self._kept = episode, values
        return self._kept[1][rows]

    def column(self, name: str, episode: int) -> np.ndarray:
        values, length = self._tensors[name][episode], int(self.lengths[episode])
        if len(values) >= length:
            return values[:length]
        return np.concatenate([values, np.full_like(values[:1], np.nan)])  # of actions, which may be one less


def _length(file: Path) -> int:
    return sum(1 for _ in frames_of(file)) if file.suffix == ".mp4" else len(_tensor(file))


def _tensor(path: Path) -> np.ndarray:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever hostile bytes make of torch's reader
        raise UserError(f"not a readable tensor: {path} ({type(error).__name__}); nothing in it was run") from error
    if not isinstance(found, torch.Tensor) or found.ndim < 1:
        raise UserError(f"{path} holds a {type(found).__name__}, not a tensor")
    return found.numpy()

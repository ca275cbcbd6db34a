"""DINO-WM's folders: padded tensors of actions and states, and frames of each episode in a file of its own.

    states.pth, velocities.pth ...   (episodes, longest, n)
    rel_actions.pth or actions.pth   (episodes, longest, a)
    obses/episode_000.mp4 or .pth    frames

Lengths are those of the frames: the file that lists them is a pickle in most sets, which nothing here loads. Actions
are kept as stored; DINO-WM's own loader divides those of Push-T by 100.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm.datasets.film import count_frames, timed_frames
from lewm.datasets.pictures import as_frames
from lewm.datasets.schema import Column
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
        self.path, self._files = path, _files(path)
        self._kept: tuple[int, np.ndarray] | None = None
        self.lengths = np.array([_length(file) for file in self._files], dtype=np.int64)
        tensors = {file.stem: _tensor(file) for file in sorted(path.glob("*.pth"))}
        self._tensors = {name: values for name, values in tensors.items() if values.ndim == 3}
        for name, values in self._tensors.items():
            self._check(name, values)
        self.columns = {name: Column(values.dtype, values.shape[2:]) for name, values in self._tensors.items()}
        self.actions = next(((name,) for name in ACTIONS if name in self.columns), ())
        self.keys = [f"{path.name}:{e}" for e in range(len(self._files))]
        self.lossy = {"pixels": "video"} if any(file.suffix == ".mp4" for file in self._files) else {}
        self.cameras = ["pixels"]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if self._kept is None or self._kept[0] != episode:
            self._kept = episode, self._episode(episode)
        return self._kept[1][rows]

    def column(self, name: str, episode: int) -> np.ndarray:
        values, length = self._tensors[name][episode], int(self.lengths[episode])
        if len(values) >= length:
            return values[:length]
        return np.concatenate([values, np.zeros_like(values[:1])])  # actions of the longest, which may be one less

    def _episode(self, episode: int) -> np.ndarray:
        file = self._files[episode]
        if file.suffix == ".pth":
            return as_frames(_tensor(file), f"frames of {file}")
        frames = [frame for _, frame in timed_frames(file)]
        if len(frames) != self.lengths[episode]:
            raise UserError(f"{file} holds {len(frames)} frames and says {self.lengths[episode]}; copy it again")
        return np.stack(frames)

    def _check(self, name: str, values: np.ndarray) -> None:
        longest = int(self.lengths.max()) - (name in ACTIONS)
        if len(values) != len(self._files) or values.shape[1] < longest:
            raise UserError(
                f"{self.path / name}.pth is {values.shape}, there are {len(self._files)} episodes of at most "
                f"{self.lengths.max()} frames: they do not belong together"
            )


def _files(path: Path) -> list[Path]:
    """The files of frames, in the order of their numbers."""
    found = [(int(m[1]), file) for file in (path / FRAMES).iterdir() if (m := EPISODE.fullmatch(file.name))]
    numbered = dict(sorted(found))
    if not numbered:
        raise UserError(f"{path / FRAMES} holds no episode_000.mp4 or .pth")
    if len(numbered) != len(found):
        raise UserError(f"{path / FRAMES} has frames of an episode twice; remove those that are not wanted")
    if list(numbered) != list(range(len(numbered))):
        lost = next(n for n in range(len(numbered)) if n not in numbered)
        raise UserError(f"{path / FRAMES} has no frames of episode {lost}; copy it again")
    return list(numbered.values())


def _length(file: Path) -> int:
    return count_frames(file) if file.suffix == ".mp4" else len(_tensor(file))


def _tensor(path: Path) -> np.ndarray:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(found, torch.Tensor) and found.ndim >= 1:
            return found.detach().numpy()
    except Exception as error:  # whatever hostile bytes make of torch's reader
        raise UserError(f"not a readable tensor: {path} ({type(error).__name__}); nothing in it was run") from error
    raise UserError(f"{path} holds a {type(found).__name__}, not a tensor of rows")

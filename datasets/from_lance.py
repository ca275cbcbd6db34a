"""stable-worldmodel's Lance tables: a row a step, `episode_idx` and `step_idx`, frames as JPEG files in `pixels`.

Read by `lewm convert` alone: the library's threads do not survive a fork, which loader workers are started by.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from lewm.datasets.foreign import as_frames
from lewm.datasets.schema import Column
from lewm.errors import UserError

EPISODE, STEP = "episode_idx", "step_idx"


def recognises(path: Path) -> bool:
    """Whether a folder is a Lance table, by its name and its versions."""
    return path.is_dir() and path.suffix == ".lance" and (path / "_versions").is_dir()


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None
    lossy: str | None = "jpeg"

    def __init__(self, path: Path) -> None:
        self.path, self._table = path, _opened(path)
        self._arrow = {field.name: field.type for field in self._table.schema}
        for name in (EPISODE, STEP):
            if name not in self._arrow:
                raise UserError(f"no column {name!r} in {path}; it has: {', '.join(sorted(self._arrow))}")
        episode, step = (self._numbers(name, slice(None)).astype(np.int64) for name in (EPISODE, STEP))
        if len(episode) == 0:
            raise UserError(f"{path} holds no rows")
        begins = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
        self._starts, self.lengths = begins, np.diff(np.append(begins, len(episode)))
        counted = np.arange(len(episode)) - np.repeat(begins, self.lengths)
        if len(np.unique(episode[begins])) != len(begins) or not np.array_equal(step, counted):
            raise UserError(f"the rows of {path} are not episode after episode, step after step; write it again")
        self.keys = [f"{path.stem}:{number}" for number in episode[begins]]
        import pyarrow as pa

        pictures = [name for name, kind in self._arrow.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)]
        self.cameras = {name: self._size(name) for name in sorted(pictures)}
        self.columns = {
            name: Column(values.dtype, values.shape[1:])
            for name in self._arrow
            if name not in (*pictures, EPISODE, STEP)
            and (values := self._numbers(name, slice(0, 1))).dtype.kind in "fiub"
        }
        self.actions = ("action",) if "action" in self.columns else ()

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        where = f"frames {camera!r} of episode {episode} in {self.path}"
        stored = self._take(camera, self._starts[episode] + rows).to_pylist()
        try:
            images = [np.asarray(Image.open(io.BytesIO(one))) for one in stored]
        except (UnidentifiedImageError, OSError, TypeError) as error:
            raise UserError(f"{where}: not a readable JPEG; the table is damaged") from error
        return as_frames(np.stack([i[..., None] if i.ndim == 2 else i for i in images]), where)

    def column(self, name: str, episode: int) -> np.ndarray:
        low = int(self._starts[episode])
        return self._numbers(name, slice(low, low + int(self.lengths[episode])))

    def _numbers(self, name: str, rows: slice) -> np.ndarray:
        import pyarrow as pa

        taken = self._take(name, np.arange(self._table.count_rows())[rows]).combine_chunks()
        if pa.types.is_fixed_size_list(taken.type):
            return taken.flatten().to_numpy(zero_copy_only=False).reshape(len(taken), -1)
        return taken.to_numpy(zero_copy_only=False)

    def _take(self, name: str, rows: np.ndarray) -> Any:
        try:
            return self._table.take(rows.tolist(), columns=[name]).column(name)
        except Exception as error:  # of a damaged file, whatever its parser meets
            raise UserError(f"column {name!r} of {self.path} cannot be read ({_said(error)}); it is damaged") from error

    def _size(self, camera: str) -> tuple[int, int, int]:
        h, w, c = self.frames(camera, 0, np.array([0])).shape[1:]
        return h, w, c


def _opened(path: Path) -> Any:
    try:
        import lance
    except ImportError as error:
        raise UserError(f"{path} is a Lance table; pip install 'lewm[lance]'") from error
    try:
        return lance.dataset(str(path))
    except Exception as error:  # of a damaged table, whatever its parser meets
        raise UserError(f"not a readable Lance table: {path} ({_said(error)})") from error


def _said(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]

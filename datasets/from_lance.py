"""stable-worldmodel's Lance tables: a row a step, `episode_idx` and `step_idx`, frames as JPEG files in `pixels`.

Read by `lewm convert` alone: the library's threads do not survive a fork, which loader workers are started by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lewm.datasets.hdf5 import first_line
from lewm.datasets.pictures import JPEG_MAGIC, decode_pictures
from lewm.datasets.schema import Column
from lewm.errors import UserError

EPISODE, STEP = "episode_idx", "step_idx"


def recognises(path: Path) -> bool:
    """Whether a folder is a Lance table, by its name and its versions."""
    return path.is_dir() and path.suffix == ".lance" and (path / "_versions").is_dir()


class Reader:
    """See `foreign.Reader`."""

    fps: float | None = None

    def __init__(self, path: Path) -> None:
        self.path, self._table = path, _opened(path)
        import pyarrow as pa

        kinds = {field.name: field.type for field in self._table.schema}
        for name in (EPISODE, STEP):
            if name not in kinds:
                raise UserError(f"no column {name!r} in {path}; it has: {', '.join(sorted(kinds))}")
        self._divide()
        pictures = sorted(n for n, kind in kinds.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
        self.cameras = pictures
        first = {name: self._numbers(name, 0, 1) for name in kinds if name not in (*pictures, EPISODE, STEP)}
        self.columns = {name: Column(values.dtype, values.shape[1:]) for name, values in first.items()}
        self.actions = ("action",) if "action" in self.columns else ()
        begins = {name: self._pictures(name, np.array([0]))[0][:2] for name in pictures}
        self.lossy = {name: "jpeg" for name in pictures if begins[name] == JPEG_MAGIC}

    def _divide(self) -> None:
        """Rows into episodes."""
        rows = self._table.count_rows()
        if rows == 0:
            raise UserError(f"{self.path} holds no rows")
        episode, step = (self._numbers(name, 0, rows).astype(np.int64) for name in (EPISODE, STEP))
        begins = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
        self._starts, self.lengths = begins, np.diff(np.append(begins, rows))
        counted = np.arange(rows) - np.repeat(begins, self.lengths)
        if len(np.unique(episode[begins])) != len(begins) or not np.array_equal(step, counted):
            raise UserError(f"the rows of {self.path} are not episode after episode, step after step; write it again")
        self.keys = [f"{self.path.stem}:{number}" for number in episode[begins]]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        return decode_pictures(
            self._pictures(camera, self._starts[episode] + rows), f"{camera!r} of episode {episode} in {self.path}"
        )

    def column(self, name: str, episode: int) -> np.ndarray:
        return self._numbers(name, int(self._starts[episode]), int(self.lengths[episode]))

    def _pictures(self, camera: str, rows: np.ndarray) -> list[bytes]:
        try:
            stored = self._table.take(rows.tolist(), columns=[camera]).column(camera).to_pylist()
        except Exception as error:  # of a damaged file, whatever its parser meets
            raise _damaged(camera, self.path, error) from error
        if None in stored:
            raise UserError(f"row {rows[stored.index(None)]} of {self.path} has no {camera!r}; the table is damaged")
        return stored

    def _numbers(self, name: str, low: int, length: int) -> np.ndarray:
        import pyarrow as pa

        try:
            taken = self._table.to_table(columns=[name], offset=low, limit=length).column(name).combine_chunks()
            if pa.types.is_fixed_size_list(taken.type):
                return taken.flatten().to_numpy(zero_copy_only=False).reshape(len(taken), -1)
            return taken.to_numpy(zero_copy_only=False)
        except Exception as error:  # of a damaged file, whatever its parser meets
            raise _damaged(name, self.path, error) from error


def _opened(path: Path) -> Any:
    try:
        import lance
    except ImportError as error:
        raise UserError(f"{path} is read with pylance: pip install 'lewm[lance]'") from error
    try:
        return lance.dataset(str(path))
    except Exception as error:  # of a damaged table, whatever its parser meets
        raise UserError(f"not a readable Lance table: {path} ({first_line(error)})") from error


def _damaged(name: str, path: Path, error: Exception) -> UserError:
    return UserError(f"column {name!r} of {path} cannot be read ({first_line(error)}); it is damaged")

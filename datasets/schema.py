"""What a source of episodes offers, whatever it is stored in, and how one is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lewm.errors import UserError


@dataclass(frozen=True)
class Column:
    """Type of one stored column: dtype and the shape of one row (without the step axis)."""

    dtype: np.dtype
    shape: tuple[int, ...]


class Source(Protocol):
    """Episodes of frames, actions and other columns, addressed by episode number and row.

    Row t of `actions` leads from frame t to frame t + 1; the last row of an episode has no valid action.
    """

    path: Path
    lengths: np.ndarray  # (episodes,) int64, rows of each episode
    keys: list[str]  # one per episode; the split depends on these alone
    columns: dict[str, Column]  # every stored column but `pixels`, `action` included
    frame_shape: tuple[int, int, int]  # h, w, c
    action_dim: int

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        """Frames at those rows: (len(rows), h, w, c) uint8."""
        ...

    def actions(self, episode: int) -> np.ndarray:
        """All rows' actions: (length, a) float32, the invalid last row included as stored."""
        ...

    def column(self, name: str, episode: int) -> np.ndarray:
        """A column's rows in its own dtype: (length, ...). UserError if there is no such column."""
        ...

    def fingerprint(self) -> str:
        """Hash of the logical content (see `summary.fingerprint`), equal for a file and its conversion."""
        ...


def open_source(path: str | Path, *, cache: str | None = None) -> Source:
    """Open an HDF5 file, a folder of shards, or such a folder behind a URL, whose shards are kept in `cache`."""
    if "://" in str(path):
        from lewm.datasets.remote_source import RemoteSource

        return RemoteSource(str(path), cache=cache)
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file or folder: {path}; give an HDF5 file or a shard folder")
    if path.is_dir():
        from lewm.datasets.tar_shards import ShardSource

        return ShardSource(path)
    from lewm.datasets.hdf5 import HDF5Source

    return HDF5Source(path)


def require_column(source: Source, name: str) -> Column:
    """The column's type, or a UserError that lists the columns there are."""
    if name not in source.columns:
        raise UserError(f"no column {name!r} in {source.path}; it has: {', '.join(sorted(source.columns))}")
    return source.columns[name]

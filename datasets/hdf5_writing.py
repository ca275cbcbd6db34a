"""An HDF5 file written so that a full disk ends in an error: left to itself, HDF5 would end the process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


@contextmanager
def created_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield a new HDF5 file, and a function that raises OSError where any of it could not be written so far.

    That is also raised when the block ends.
    """
    with _Patient(path, "w+") as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield file, raw.check
        finally:
            raw.check()


class _Patient(io.FileIO):
    """A file that takes every write, and gives it back when read, though the disk may not: `check` raises that error.

    Where a write fails HDF5 tries again as it closes the file, and once more as the process ends, and crashes there.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self._failure: OSError | None = None
        self._lost: list[tuple[int, bytes]] = []  # where it belongs, and what the disk did not take

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self._failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._failure = error
        if len(left):
            self._lost.append((self.tell(), bytes(left)))
        return size

    def readinto(self, buffer: Any) -> int:
        at, out = self.tell(), memoryview(buffer).cast("B")
        super().readinto(out)
        for start, content in self._lost:
            low, high = max(at, start), min(at + len(out), start + len(content))
            if low < high:
                out[low - at : high - at] = content[low - start : high - start]
        return len(out)

    def truncate(self, size: int | None = None) -> int:
        return super().truncate(size) if self._failure is None else size or 0

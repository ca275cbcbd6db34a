"""Where shipped files lie, and files and folders written so that nothing is ever half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lewm.errors import UserError


def shipped(name: str) -> Path:
    """A file under `configs/`, from the installed package or a bare checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / name).exists():
            return folder / name
    known = sorted(path.stem for path in (folder_of_configs() / name).parent.glob("*.yaml"))
    raise UserError(f"no shipped config {name.removesuffix('.yaml')!r}; there are: {', '.join(known)}")


def folder_of_configs() -> Path:
    """The folder of shipped configs."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").exists() else here.parent / "configs"


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; UserError where that cannot be done."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another place") from error
    return path


@contextmanager
def written_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and takes its place in one step.

    On any error the temporary file is removed and what stood at `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file's or folder's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

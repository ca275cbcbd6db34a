"""Where shipped files lie, and files and folders written so that nothing is ever half there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def written_atomically(path: str | Path, *, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and takes its place in one step.

    On any error the temporary file is removed and what stood at `path` is untouched. Where the disk is full the
    UserError says how many bytes are free, and how many are `needed` if the caller knows.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error, path.parent, needed)}") from error
    finally:
        with suppress(OSError):  # in a folder that may no longer be written to, say: the first error is the one to tell
            temporary.unlink(missing_ok=True)


def _reason(error: OSError, folder: Path, needed: int | None) -> str:
    """What the system says, and what to do about it."""
    why = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{why}; free space or choose another place"
    size = f"it needs {needed / 2**20:.1f} MiB, " if needed is not None else ""
    free = shutil.disk_usage(folder).free / 2**20
    return f"{why}: {size}{free:.1f} MiB are free; free space or choose another place"


def sync(path: Path) -> None:
    """Force a file's or folder's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

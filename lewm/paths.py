"""Where shipped files lie, and files and folders written so that nothing is ever half there."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lewm.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_unfinished: set[tuple[int, Path]] = set()  # process and file: a forked one has its parent's too


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
def written_atomically(
    path: str | Path, *, needed: int | None = None, locked: bool = False, elsewhere: str = "choose another place"
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and takes its place in one step.

    On any error the temporary file is removed and what stood at `path` is untouched. Where the disk is full the
    UserError says how many bytes are free, and how many are `needed` if the caller knows; `elsewhere` is its advice.
    With `locked`, one process at a time writes: what one left that was killed is then written over by the next.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp" if locked else f".{path.name}.{os.getpid()}.tmp")
    mine = (os.getpid(), temporary)
    _unfinished.add(mine)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        _remove(temporary)  # before free space is asked for
        raise UserError(f"cannot write {path}: {reason(error, path.parent, needed)} or {elsewhere}") from error
    finally:
        _remove(temporary)
        _unfinished.discard(mine)


@contextmanager
def folder_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes its place on success and is removed on any error.

    UserError where something stands at `path` already, an empty folder excepted.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there already and is not empty; name another folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    make_folder(temporary)
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error, path.parent)} or choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@atexit.register
def _remove_unfinished() -> None:
    """A process that ends does not wait for its daemon threads, such as those that fetch shards ahead."""
    for process, temporary in list(_unfinished):
        if process == os.getpid():
            _remove(temporary)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # in a folder that may no longer be written to, say: the first error is the one to tell
        temporary.unlink(missing_ok=True)


def reason(error: OSError, folder: Path, needed: int | None = None) -> str:
    """What the system says, on a full disk how much is needed and free, and what to do about it."""
    why = error.strerror or str(error)
    if error.errno not in DISK_FULL:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        return f"{why}; {'allow writing there' if denied else 'free space'}"
    size = f"it needs {needed / 2**20:.1f} MiB, " if needed is not None else ""
    free = shutil.disk_usage(folder).free / 2**20
    return f"{why}: {size}{free:.1f} MiB are free; free space"


def sync(path: Path) -> None:
    """Force a file's or folder's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

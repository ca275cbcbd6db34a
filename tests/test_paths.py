"""Files written so that nothing is ever half there, also where the machine loses its power."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lewm.errors import UserError
from lewm.paths import written_atomically


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """What is synced, by the file's number, and what is renamed, in order."""
    found: list[tuple] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        found.append(("sync", os.fstat(descriptor).st_ino, stat.S_ISDIR(os.fstat(descriptor).st_mode)))
        fsync(descriptor)

    def note_replace(a, b) -> None:
        found.append(("replace", Path(a), Path(b), Path(a).stat().st_ino, Path(a).read_bytes()))
        replace(a, b)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    return found


def test_a_file_is_synced_then_renamed_from_beside_then_its_folder_is_synced(tmp_path, calls):
    path = tmp_path / "x.bin"
    path.write_bytes(b"before")
    with written_atomically(path) as temporary:
        temporary.write_bytes(b"after")
    (sync, replace, last) = calls
    assert replace[:3] == ("replace", temporary, path)
    assert temporary.parent == path.parent  # a rename between disks is a copy, which can be cut short
    assert replace[4] == b"after"
    assert sync == ("sync", replace[3], False)
    assert last == ("sync", tmp_path.stat().st_ino, True)
    assert list(tmp_path.iterdir()) == [path]


def test_where_the_sync_fails_the_earlier_file_stays(tmp_path, monkeypatch):
    (tmp_path / "x.bin").write_bytes(b"before")

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError, match=r"cannot write .*x\.bin: Input/output error"):  # noqa: SIM117
        with written_atomically(tmp_path / "x.bin") as temporary:
            temporary.write_bytes(b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.bin", b"before")]


def test_a_shard_is_synced_before_it_has_its_name_and_the_manifest_comes_last(tmp_path, calls):
    import numpy as np

    from lewm.datasets.shard_writer import EpisodeWriter

    with EpisodeWriter(tmp_path / "out", codec="raw") as writer:
        writer.add(np.zeros((3, 8, 8, 3), np.uint8), {"action": np.zeros((3, 2), np.float32)}, key="a")
    synced = [call[1] for call in calls if call[0] == "sync"]
    tar = (tmp_path / "out" / "shard-000000.tar").stat().st_ino
    assert tar in synced
    assert [call[2].name for call in calls if call[0] == "replace"][-1] == "manifest.json"
    folder = ("sync", (tmp_path / "out").stat().st_ino, True)
    assert calls.index(("sync", tar, False)) < calls.index(folder)


def test_what_a_thread_is_still_writing_when_the_process_ends_is_removed(tmp_path):
    code = """
import sys, threading
from lewm.paths import written_atomically
begun = threading.Event()

def write():
    with written_atomically(sys.argv[1]) as temporary:
        temporary.write_bytes(b"half")
        begun.set()
        threading.Event().wait()

threading.Thread(target=write, daemon=True).start()
begun.wait()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.bin")], check=True, timeout=60)
    assert not list(tmp_path.iterdir())

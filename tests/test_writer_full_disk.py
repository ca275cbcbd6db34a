"""A disk that fills up under a converter or a collector: one line, nothing half-written, and `--resume` goes on."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
from conftest import flat_columns

from lewm.cli import main
from lewm.datasets.shard_writer import EpisodeWriter

PAGE = 4096  # what a tmpfs gives room by
CONVERT = ("--codec", "raw", "--shard_mb", "1")
COLLECT = ("collect", "two_room", "--episodes", "6", "--image_size", "16", "--codec", "raw")
CLIPS = ("collect", "two_room", "--triples", "3", "--image_size", "16")
WHY = r": ([\d.]+) MiB are free; free space, then --resume"


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes at a folder; skipped only where the system lets us mount none."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        if os.getuid() == 0 and "permission denied" not in done.stderr:
            pytest.fail(done.stderr)
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pages(files: dict[str, bytes]) -> int:
    return sum(-(-len(found) // PAGE) for found in files.values())


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each finished shard is, and when it was last written."""
    return {tar.name: ((at := tar.stat()).st_ino, at.st_mtime_ns) for tar in folder.glob("shard-*.tar")}


def error_of(text: str) -> str:
    assert "Traceback" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("lewm: ")]
    return line


def run_limited(argv: list[str], largest: int) -> tuple[int, str]:
    """Exit code and error output of `lewm`, in a process that can write no file longer than so many bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "lewm", *argv],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
    )
    return done.returncode, done.stderr


def check_left(out: Path, whole: dict[str, bytes]) -> None:
    """Only whole files under their final names, beside the note on what was begun."""
    for name, found in content(out).items():
        assert name == ".begun.json" or found == whole[name], name
    assert not (out / "manifest.json").exists()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "flat.h5"
    with h5py.File(path, "w") as file:
        for name, values in flat_columns([300] * 11).items():  # 2.2 MiB of frames: two shards and a bit
            file.create_dataset(name, data=values)
    return path


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["convert", str(source), str(out), *CONVERT]) == 0
    return content(out)


@pytest.mark.parametrize("where", ["in the midst of a shard", "in its last bytes"])
def test_a_converter_that_may_write_no_longer_file_says_what_it_needs_and_goes_on_to_the_same_bytes(
    source, whole, tmp_path, where
):
    argv, size = ["convert", str(source), str(tmp_path / "out"), *CONVERT], len(whole["shard-000000.tar"])
    code, said = run_limited(argv, size // 2 if where == "in the midst of a shard" else size - 1)
    path = re.escape(str(tmp_path / "out" / "shard-000000.tar"))
    assert re.fullmatch(rf"lewm: error: cannot write {path}, up to 1\.0 MiB: File too large{WHY}", error_of(said))
    assert code == 2
    check_left(tmp_path / "out", whole)
    assert main([*argv, "--resume"]) == 0
    assert content(tmp_path / "out") == whole


@pytest.mark.parametrize("where", ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "manifest.json"])
def test_a_converter_on_a_full_disk_keeps_finished_shards_and_goes_on_to_the_same_bytes(
    source, whole, tmp_path, capsys, where
):
    before = {name: found for name, found in whole.items() if name < where or "manifest" in where != name}
    room = pages(before) if "manifest" in where else pages({n: f for n, f in whole.items() if n[:12] < where[:12]})
    with disk(tmp_path / "disk", (room + (1 if "manifest" in where else 20)) * PAGE) as place:
        out = place / "out"
        argv = ["convert", str(source), str(out), *CONVERT]
        assert main(argv) == 2
        line = error_of(capsys.readouterr().err)
        size = ", up to 1.0 MiB" if where.endswith(".tar") else ""
        words = rf"lewm: error: cannot write {re.escape(str(out / where))}{size}: No space left on device{WHY}"
        (free,) = re.fullmatch(words, line).groups()
        assert free == f"{shutil.disk_usage(place).free / 2**20:.1f}"
        check_left(out, whole)
        kept = finished(out)
        assert set(kept) == {name for name in before if name.endswith(".tar")}
        enlarge(place)
        assert main([*argv, "--resume"]) == 0
        assert content(out) == whole
        assert kept.items() <= finished(out).items()


def test_a_collector_that_may_write_no_longer_file_says_so_and_goes_on_to_the_same_bytes(tmp_path):
    assert main([*COLLECT, "--out", str(tmp_path / "whole")]) == 0
    whole, argv = content(tmp_path / "whole"), [*COLLECT, "--out", str(tmp_path / "out")]
    code, said = run_limited(argv, len(whole["shard-000000.tar"]) // 2)
    assert re.search(rf"shard-000000\.tar, up to 256\.0 MiB: File too large{WHY}", error_of(said))
    assert code == 2
    check_left(tmp_path / "out", whole)
    assert main([*argv, "--resume"]) == 0
    assert content(tmp_path / "out") == whole


def test_a_collector_on_a_full_disk_keeps_finished_shards_and_goes_on_to_the_same_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EpisodeWriter.__init__.__kwdefaults__, "shard_bytes", 100_000)
    assert main([*COLLECT, "--out", str(tmp_path / "whole")]) == 0
    whole = content(tmp_path / "whole")
    first = {name: found for name, found in whole.items() if name.startswith("shard-000000")}
    assert len([name for name in whole if name.endswith(".tar")]) > 2
    with disk(tmp_path / "disk", (pages(first) + 5) * PAGE) as place:
        argv = [*COLLECT, "--out", str(place / "out")]
        assert main(argv) == 2
        assert re.search(
            rf"shard-000001\.tar, up to 0\.1 MiB: No space left on device{WHY}", error_of(capsys.readouterr().err)
        )
        check_left(place / "out", whole)
        kept = finished(place / "out")
        assert list(kept) == ["shard-000000.tar"]
        enlarge(place)
        assert main(argv) == 2
        assert "add --resume" in capsys.readouterr().err
        for wrong in (["--seed", "1"], ["--policy", "wander"], ["--episodes", "1"]):
            assert main([*argv, *wrong, "--resume"]) == 2, wrong
            assert "begun" in capsys.readouterr().err
        assert main([*argv, "--resume", "--workers", "1"]) == 0
        assert content(place / "out") == whole
        assert kept.items() <= finished(place / "out").items()
        assert main([*argv, "--resume"]) == 0  # it is all there
        assert main([*argv, "--resume", "--episodes", "7"]) == 2
        assert "finished" in capsys.readouterr().err


def test_clips_that_fill_the_disk_end_with_one_line_and_leave_no_file(tmp_path):
    assert main([*CLIPS, "--out", str(tmp_path / "whole.h5")]) == 0
    size = (tmp_path / "whole.h5").stat().st_size
    out = tmp_path / "out" / "clips.h5"
    for largest in (size // 2, size - 1):
        code, said = run_limited([*CLIPS, "--out", str(out)], largest)
        assert code == 2, said  # HDF5 dies of an error while it closes a file
        line = error_of(said)
        assert re.search(r"cannot write \S*clips\.h5: File too large: [\d.]+ MiB are free; free space or choose", line)
        assert list(out.parent.iterdir()) == []
    with disk(tmp_path / "disk", size // 2 // PAGE * PAGE) as place:
        argv = [*CLIPS, "--out", str(place / "clips.h5")]
        done = subprocess.run([sys.executable, "-m", "lewm", *argv], capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "clips.h5: No space left on device" in error_of(done.stderr)
        assert list(place.iterdir()) == []
        enlarge(place)
        assert main(argv) == 0
        assert (place / "clips.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()

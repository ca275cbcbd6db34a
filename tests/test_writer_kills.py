"""A converter or collector killed with -9: nothing half-written is taken for data; --resume ends in the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import flat_columns

from lewm.cli import main
from lewm.datasets.schema import open_source
from lewm.errors import UserError

# `lewm convert` with syncs and episodes drawn out, so that a kill can hit what is between two of them.
SLOW_CONVERT = """
import os, sys, time
from lewm.datasets.convert import convert
from lewm.datasets.shard_writer import EpisodeWriter

def drawn_out(real, seconds):
    def call(*args, **named):
        time.sleep(seconds)
        return real(*args, **named)
    return call

os.fsync, EpisodeWriter.add = drawn_out(os.fsync, 0.06), drawn_out(EpisodeWriter.add, 0.02)
convert(sys.argv[1], sys.argv[2], codec="raw", shard_bytes=2**20)
"""
RESUME = ("--codec", "raw", "--shard_mb", "1", "--resume")


def has(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "in the midst of a shard": lambda out: has(out, ".shard-000001.tar.tmp"),
    "between a shard and its index": lambda out: has(out, "shard-000001.tar") and not has(out, "shard-000001.idx.npz"),
    "between two shards": lambda out: has(out, "shard-000000.idx.npz") and not has(out, ".shard-000001.tar.tmp"),
    "while the manifest is written": lambda out: has(out, ".manifest.json.*.tmp"),
    "after the manifest": lambda out: has(out, "manifest.json") and has(out, ".begun.json"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "flat.h5"
    with h5py.File(path, "w") as file:
        for name, values in flat_columns([100] * 30).items():  # 2.2 MiB of frames: two shards and a bit
            file.create_dataset(name, data=values)
    return path


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", SLOW_CONVERT, source, out], check=True)
    return {"seconds": str(time.monotonic() - begun).encode(), **content(out)}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(source: Path, out: Path, stands: Callable[[], bool]) -> bool:
    """Begin to convert, and kill as soon as something holds; False if the converter ended before."""
    process = subprocess.Popen([sys.executable, "-c", SLOW_CONVERT, source, out])
    while process.poll() is None and not stands():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each finished shard is, and when it was last written."""
    return {tar.name: ((at := tar.stat()).st_ino, at.st_mtime_ns) for tar in folder.glob("shard-*.tar")}


def check_and_resume(source: Path, out: Path, whole: dict[str, bytes]) -> None:
    """What the kill left is whole or hidden; `--resume` keeps its shards and ends in an uninterrupted run's bytes."""
    left, kept = content(out) if out.exists() else {}, finished(out)
    for name, found in left.items():
        assert name.startswith(".") or found == whole[name], name
    if "manifest.json" not in left and out.exists():
        with pytest.raises(UserError):
            open_source(out)
    assert main(["convert", str(source), str(out), *RESUME]) == 0
    assert content(out) == {name: found for name, found in whole.items() if name != "seconds"}
    assert kept.items() <= finished(out).items()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_converter_killed_at_a_chosen_moment_goes_on_to_the_same_bytes(source, whole, tmp_path, moment):
    out = tmp_path / "out"
    for _ in range(5):  # a moment can be missed on a busy machine
        for path in out.glob("*") if out.exists() else ():
            path.unlink()
        if killed(source, out, lambda: MOMENTS[moment](out)) and MOMENTS[moment](out):
            break
    else:
        pytest.fail("the moment was missed five times")
    check_and_resume(source, out, whole)


@pytest.mark.parametrize("trials", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_a_converter_killed_again_and_again_at_random_moments_goes_on_to_the_same_bytes(
    source, whole, tmp_path, trials
):
    rng = random.Random(trials)
    for trial in range(trials):
        out = tmp_path / f"out{trial}"
        moment = rng.uniform(0, float(whole["seconds"]))
        killed(source, out, lambda moment=moment: time.sleep(moment) is None)
        check_and_resume(source, out, whole)


def test_a_killed_collection_is_no_data_set_and_is_not_written_over(tmp_path, capsys):
    command = [sys.executable, "-m", "lewm", "collect", "two_room", "--out", "out", "--episodes", "10000"]
    process = subprocess.Popen([*command, "--image_size", "16", "--codec", "raw"], cwd=tmp_path)
    out = tmp_path / "out"
    while process.poll() is None and not has(out, ".shard-000000.tar.tmp"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [name for name in content(out) if not name.startswith(".")] == []
    with pytest.raises(UserError):
        open_source(out)
    again = ["collect", "two_room", "--out", str(out), "--episodes", "2", "--image_size", "16"]
    assert main(again) == 0  # no shard was finished: nothing is lost
    assert np.all(open_source(out).lengths > 0)
    assert not [name for name in content(out) if name.startswith(".")]
    os.rename(out / "manifest.json", tmp_path / "manifest.json")  # as if killed with a finished shard
    before = content(out)
    assert main(again) == 2
    assert "unfinished" in capsys.readouterr().err
    assert content(out) == before

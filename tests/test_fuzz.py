"""Any fault of any file ends in right data, a plain error or a counted skip; `benchmarks/fuzz.py` tries far more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz
import fuzz_large
from fuzz_faults import mutate

from lewm.allocator import keep_freed
from lewm.datasets import npy
from lewm.datasets.pixels import CODECS, PackedFrames, decode_frame, encode_frame
from lewm.datasets.tar_index import BLOCK, member_of

GOOD = {"right", "error", "skipped"}
HERE = sorted(set(fuzz.KINDS) - set(fuzz.ISOLATED))
repeatable = settings(derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return fuzz.Bench(tmp_path_factory.mktemp("fuzz"))


def acceptable(name: str, outcome: fuzz.Outcome) -> bool:
    allowed = GOOD | ({"wrong, uncovered"} if fuzz.KINDS[name].uncovered else set())
    return outcome.outcome in allowed and outcome.memory < fuzz.ROOM


@settings(repeatable, max_examples=200)
@given(name=st.sampled_from(HERE), seed=st.integers(0, 2**32 - 1))
def test_no_fault_of_any_file_gives_a_wrong_clip_or_a_traceback(bench, name, seed):
    outcome = bench.try_one(name, seed)
    assert acceptable(name, outcome), outcome


def test_hdf5_and_videos_are_read_in_a_child_that_neither_crashes_nor_hangs_and_whose_death_would_be_counted(
    tmp_path, monkeypatch
):
    reader = fuzz.Reader(tmp_path)
    try:
        for name in fuzz.ISOLATED:
            for seed in range(20):
                outcome = reader.try_one(name, 1000 + seed)
                assert acceptable(name, outcome), (name, seed, outcome)
        process = reader._process
        assert process is not None
        process.kill()
        process.wait()
        assert reader.try_one("HDF5", 0) == fuzz.Outcome("CRASH", "exit code -9")
    finally:
        reader.close()
        reader._notes.close()


LARGE = ["shards, raw", "bombs in zstd", "bombs in png", "file of clips", "images of clips"]


def test_large_damaged_files_and_bombs_take_less_than_twice_their_part_and_64_mib(tmp_path):
    command = [sys.executable, fuzz_large.__file__, f"--n={3 * len(LARGE)}", f"--kinds={';'.join(LARGE)}"]
    done = subprocess.run([*command, f"--json={tmp_path / 'found.json'}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [len(found[name]) for name in LARGE] == [3] * len(LARGE)
    assert max(outcome["memory"] for outcome in found["shards, raw"]) > fuzz_large.PART  # it is measured


@pytest.mark.parametrize("kept", [False, True])
def test_memory_beyond_the_bar_is_seen_and_a_child_that_dies_is_counted(kept):
    def greedy(path):
        return {"sum": float(np.ones(2**24).sum())}  # 128 MiB

    def measured():
        if kept:  # freed by what came before, but still the process's own
            assert keep_freed()
            _ = [np.ones(2**21) for _ in range(10)]
            del _
        return vars(fuzz.outcome_of(kind, {"sum": 2.0**24}, Path("x"), ""))

    kind = fuzz.Kind(lambda folder: None, lambda rng, folder: "", greedy)
    found = fuzz_large.forked(measured)
    assert found["outcome"] == "right"
    assert found["memory"] > fuzz_large.KINDS["bombs in zstd"].bar
    died = fuzz_large.forked(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert died["outcome"] == "CRASH"


def test_a_wrong_clip_is_told_from_a_right_one_and_from_one_that_nothing_covers():
    raw, zstd = fuzz.KINDS["raw frames"], fuzz.KINDS["zstd frames"]
    facts = {"frames 0": b"a", "actions 0": b"b"}
    assert fuzz.judge(zstd, facts, dict(facts), "flip")[0] == "right"
    assert fuzz.judge(zstd, facts, facts | {"frames 0": b"x"}, "flip")[0] == "WRONG"
    assert fuzz.judge(raw, facts, facts | {"frames 0": b"x"}, "flip")[0] == "wrong, uncovered"
    assert fuzz.judge(raw, facts, facts | {"actions 0": b"x"}, "flip")[0] == "WRONG"
    clips = {"clips": {0: b"a", 1: b"b"}, "skipped": 0}
    assert fuzz.judge(zstd, clips, {"clips": {0: b"a"}, "skipped": 1}, "flip")[0] == "skipped"
    assert fuzz.judge(zstd, clips, {"clips": {0: b"x"}, "skipped": 1}, "flip")[0] == "WRONG"


@settings(repeatable, max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), codec=st.sampled_from([c for c in CODECS if c not in ("raw", "jpeg")]))
def test_a_mutated_frame_is_refused_or_right(seed, codec):
    rng = np.random.default_rng(seed)
    frame = np.zeros((9, 7, 3), np.uint8)
    frame[2:5, 1:4] = rng.integers(0, 256, 3)
    fault, blob = mutate(rng, encode_frame(frame, codec))
    out = np.empty_like(frame)
    try:
        decode_frame(blob, codec, out)
    except ValueError:
        return
    assert (out == frame).all(), fault


@settings(repeatable, max_examples=150)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_array_a_header_a_container_or_a_value_error(content, dressed):
    array = npy.dumps(np.arange(4.0))[:60] + content if dressed else content
    header = b"ep000000.action.npy" + content.ljust(BLOCK, b"\0")[: BLOCK - 19] if dressed else content
    container = b"LWF1" + content if dressed else content
    for read in (
        lambda: npy.loads(array),
        lambda: npy.loads(array, shape=(4,), dtype=np.dtype(np.float64)),
        lambda: member_of(header),
        lambda: PackedFrames(lambda low, n: container[low : low + n], len(container)),
    ):
        try:
            read()
        except ValueError:
            continue

"""Killed with -9 and resumed, a run ends bit by bit as an uninterrupted one; what cannot go on so is refused."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
import torch
from conftest import TINY_FLAGS, flat_columns

from lewm import checkpoint
from lewm.cli import main

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MOMENTS = ("mid-epoch", "during a save", "in validation", "twice in a row")


def drive(script: str, *words: str) -> tuple[int, str]:
    """Exit code of one of the drivers, and all that it said."""
    command = [sys.executable, str(BENCHMARKS / script), *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_runs_killed_at_four_kinds_of_moments_end_in_the_bits_of_an_uninterrupted_one():
    code, said = drive("kills.py", "--quick", f"--trials={len(MOMENTS)}", f"--kinds={','.join(MOMENTS)}")
    assert code == 0, said
    for moment in MOMENTS:
        assert f"| {moment} | 1 | 1 |" in said
    assert "planted fault seed: found" in said  # the comparison sees a resumed run that draws other dropout


@pytest.mark.slow
def test_thirty_runs_killed_at_every_kind_of_moment_end_in_the_bits_of_an_uninterrupted_one():
    code, said = drive("kills.py", "--trials=30")
    assert code == 0, said
    assert "NOT FOUND" not in said


@pytest.mark.slow
def test_a_run_killed_on_one_rank_and_resumed_on_two_or_four_keeps_the_clips_of_every_step():
    code, said = drive("kill_ranks.py", "1:2", "1:4", "2:1")
    assert code == 0, said
    assert said.count("same clips") == 3


@pytest.fixture
def same(monkeypatch) -> Callable[..., bool]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module("kills").same


def test_the_comparison_sees_a_single_bit_a_type_and_a_lost_entry(same):
    x = torch.tensor([1.0, float("nan"), 0.0])
    assert same({"a": [x, 3]}, {"a": [x.clone(), 3]})
    assert not same(x, torch.tensor([1.0, float("nan"), -0.0]))
    assert not same(x, x.nextafter(torch.tensor(2.0)))
    assert not same(x, x.double())
    assert not same({"a": x}, {"a": x, "b": x})
    assert not same([x], [x, x])


def fit(root: Path, *flags: str) -> int:
    own = ["--data.frameskip=2", f"--data.path={root / 'flat.h5'}", f"--trainer.default_root_dir={root}"]
    length = ["--trainer.max_steps=12", "--trainer.max_epochs=-1", "--checkpoint_every=4", "--model.dropout=0.1"]
    return main(["fit", *TINY_FLAGS, *own, *length, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with data and a run of 12 steps, with checkpoints of steps 8 and 12."""
    root = tmp_path_factory.mktemp("finished")
    with h5py.File(root / "flat.h5", "w") as file:
        for name, values in flat_columns([30] * 16).items():
            file.create_dataset(name, data=values)
    assert fit(root) == 0
    return root


@pytest.fixture
def root(finished, tmp_path) -> Iterator[Path]:
    """The same, made whole again after each test; checkpoints know their place, so no copy would do."""
    shutil.copytree(finished / "lewm", tmp_path / "saved")
    yield finished
    shutil.rmtree(finished / "lewm")
    shutil.copytree(tmp_path / "saved", finished / "lewm")


def zero_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 - 500 : len(content) // 2 + 500] = bytes(1000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        zero_the_middle,
        lambda path: path.write_bytes(b""),
    ],
    ids=["truncated", "zeroed in the middle", "empty"],
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(root, damage, capsys):
    newest, earlier = checkpoint.newest_first(root / "lewm")[:2]
    weights = checkpoint.read(newest)["state_dict"]
    damage(newest)
    assert fit(root, "--resume=auto") == 0
    assert f"skipped a checkpoint that cannot be read: {newest}" in capsys.readouterr().err
    assert checkpoint.step_of(earlier) == 8
    again = checkpoint.read(checkpoint.resolve(root / "lewm"))
    assert again["global_step"] == 12
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again["state_dict"].items())


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--trainer.accumulate_grad_batches=2", "SIGReg is a statistic of the whole global batch"),
        ("--data.global_batch=4", "was trained with data.global_batch 8"),
    ],
)
def test_another_accumulation_or_global_batch_is_refused_with_the_reason_and_the_run_stays_as_it_is(
    root, flag, reason, capsys
):
    def content() -> dict[str, bytes]:
        changing = ("log.txt", "tfevents")
        files = [path for path in sorted((root / "lewm").rglob("*")) if path.is_file()]
        return {str(p): p.read_bytes() for p in files if not any(word in p.name for word in changing)}

    before = content()
    earlier = checkpoint.newest_first(root / "lewm")[1]  # with rows in the log that come after it
    for resume in ("auto", str(earlier)):
        assert fit(root, f"--resume={resume}", "--trainer.max_steps=14", flag) == 2
        assert reason in capsys.readouterr().err
        assert content() == before
    assert main(["fit", f"--resume={next((root / 'lewm').iterdir())}", "--trainer.max_steps=14"]) == 0

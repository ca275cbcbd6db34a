"""Four, two and one gloo processes train alike: `benchmarks/ranks.py` on a small model, held to its bars."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, write_walks

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "ranks.py"
# 64 clips, so that rounding is that of sums over rows and not of a handful of them.
SMALL = TINY | {"projector_hidden": 32, "sigreg_directions": 32, "lr": 1e-3}
FLAGS = ["--config=base", *(f"--model.{name}={value}" for name, value in SMALL.items() if name != "encoder_kwargs")]
FLAGS += ["--model.encoder_kwargs={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}"]
FLAGS += ["--data.global_batch=64", "--data.frameskip=2"]


def measured(folder: Path, worlds: str, steps: int, free_steps: int) -> list[dict]:
    """Rows of the benchmark's table."""
    data, table = write_walks(folder / "walk.h5", 40), folder / "table.json"
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--backend=gloo", f"--worlds={worlds}", f"--json={table}"]
    command += [f"--steps={steps}", f"--free_steps={free_steps}", f"--data={data}", "--", *FLAGS]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(table.read_text())


def assert_within_the_bars(row: dict) -> None:
    assert row["same_clips"]
    assert row["loss"] < 1e-6
    assert row["sigreg"] < 1e-6
    assert row["gradient"] <= 1, row["gradient_of"]
    assert row["float64"] < 1e-9
    assert row["float64_weights"] < 1e-9
    assert row["float32_loss"] < 1e-4


def test_two_processes_see_the_clips_and_have_the_losses_and_gradients_of_one(tmp_path):
    (row,) = measured(tmp_path, "2", steps=3, free_steps=5)
    assert_within_the_bars(row)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("ranks")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_a_distance_that_is_not_finite_is_never_passed_over(bench, wrong, place):
    values, x = [1.0, 1.0], torch.ones(2)
    values[place] = wrong
    with pytest.raises(SystemExit, match="not finite"):
        bench._largest(values, [1.0, 1.0])
    names = ("a.weight", "b.weight")
    with pytest.raises(SystemExit, match=f"not finite: {names[place]}"):
        bench.gradient_excess({name: x * values[i] for i, name in enumerate(names)}, dict.fromkeys(names, x))


def test_the_distance_of_weights_is_relative_and_sees_every_one_of_them(bench):
    wanted = {"a": torch.tensor([3.0, 0.0], dtype=torch.float64), "b": torch.tensor([[4.0]], dtype=torch.float64)}
    assert bench.weight_distance(wanted, wanted) == 0
    other = wanted | {"b": wanted["b"] + 5e-9}
    assert bench.weight_distance(other, wanted) == pytest.approx(1e-9)


@pytest.mark.slow
def test_two_and_four_processes_follow_one_over_50_steps(tmp_path):
    rows = measured(tmp_path, "2,4", steps=10, free_steps=50)
    assert [row["world"] for row in rows] == [2, 4]
    for row in rows:
        assert_within_the_bars(row)

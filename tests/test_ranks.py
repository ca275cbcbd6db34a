"""Four, two and one gloo processes train alike: `benchmarks/ranks.py` on a small model, held to its bars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
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
    assert row["float32_loss"] < 1e-4


def test_two_processes_see_the_clips_and_have_the_losses_and_gradients_of_one(tmp_path):
    (row,) = measured(tmp_path, "2", steps=3, free_steps=5)
    assert_within_the_bars(row)


@pytest.mark.slow
def test_two_and_four_processes_follow_one_over_50_steps(tmp_path):
    rows = measured(tmp_path, "2,4", steps=10, free_steps=50)
    assert [row["world"] for row in rows] == [2, 4]
    for row in rows:
        assert_within_the_bars(row)

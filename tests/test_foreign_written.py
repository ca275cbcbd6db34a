"""Data sets of other tools, by their own writers (tests/data/foreign): converted, compared, trained on."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS

from lewm.cli import main
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.schema import open_source

HERE = Path(__file__).parent / "data" / "foreign"
sys.path.append(str(HERE))
from episodes import LENGTHS, episodes  # noqa: E402

FRONT = "--camera=observation.images.front"
WRIST = "--camera=observation.images.wrist"
# name: file or folder, side of frames, flags, column of states, how far frames are off in the mean (0: not at all)
WRITTEN = {
    "swm_blosc": ("swm_blosc.h5", 32, [], "state", 0),
    "lance": ("swm.lance", 32, [], "state", 4),
    "lerobot_v21": ("lerobot_v21", 64, [FRONT], "observation.state", 4),
    "lerobot_v21_pictures": ("lerobot_v21", 64, [WRIST], "observation.state", 0),
    "lerobot_v30": ("lerobot_v30", 64, [FRONT], "observation.state", 4),
    "lerobot_v30_pictures": ("lerobot_v30", 64, [WRIST], "observation.state", 0),
    "zarr2": ("zarr2.zarr", 32, [], "state", 0),
    "minari": ("minari", 32, [], "observations/state", 4),
    "dino_wm": ("dino_wm", 32, [], "states", 4),
}


def converted(path: Path, out: Path, *flags: str) -> Path:
    """Shards; of Lance by a process of its own, whose threads would trouble the tests that fork after it."""
    argv = ["convert", str(path), str(out), *flags]
    if path.suffix != ".lance":
        assert main(argv) == 0
        return out
    done = subprocess.run([sys.executable, "-m", "lewm", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module", params=WRITTEN)
def case(request, tmp_path_factory):
    """Shards of a data set, and what they should hold."""
    name, side, flags, states, off = WRITTEN[request.param]
    return converted(HERE / name, tmp_path_factory.mktemp(request.param) / "out", *flags), side, states, off


def test_frames_are_the_truth_or_within_the_codecs_error_and_of_no_other_row(case):
    out, side, _, off = case
    shards = open_source(out)
    assert tuple(shards.lengths) == LENGTHS and len(set(shards.keys)) == len(LENGTHS)
    for e, (truth, _, _) in enumerate(episodes(side)):
        frames = shards.frames(e, np.arange(LENGTHS[e])).astype(int)
        if off == 0:
            np.testing.assert_array_equal(frames, truth)
        assert np.abs(frames - truth).mean() <= off
        assert np.abs(frames - truth).mean(axis=(1, 2, 3)).max() < 6
        nearest = [np.abs(frame - truth).mean(axis=(1, 2, 3)).argmin() for frame in frames]
        assert nearest == list(range(LENGTHS[e]))


def test_actions_and_states_are_the_truth_but_for_the_last_action(case):
    out, side, states, _ = case
    shards = open_source(out)
    for e, (_, actions, positions) in enumerate(episodes(side)):
        np.testing.assert_array_equal(shards.actions(e)[:-1], actions[:-1])
        np.testing.assert_array_equal(shards.column(states, e), positions)


def test_the_manifest_says_what_is_lossy_and_what_was_taken(case):
    out, _, _, off = case
    about = json.loads((out / "manifest.json").read_text())["provenance"]
    assert about.get("lossy") in (("jpeg", "video") if off else (None,))
    if "lerobot" in about["source"]:
        assert about["camera"].startswith("observation.images.") and about["action_columns"] == ["action"]


def test_a_tiny_model_trains_for_twenty_steps_and_no_last_action_enters_its_statistics(case, tmp_path):
    out, side, _, _ = case
    module = ClipDataModule(str(out), global_batch=8, num_workers=0)
    truth = [actions[:-1] for e, (_, actions, _) in enumerate(episodes(side)) if e in module.episodes("train")]
    np.testing.assert_allclose(module.interface.action_mean, np.concatenate(truth).mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(module.interface.action_std, np.concatenate(truth).std(0), rtol=1e-5)
    flags = ("--trainer.max_steps=20", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    where = (f"--data.path={out}", "--data.frameskip=2", f"--trainer.default_root_dir={tmp_path}")
    assert main(["fit", *TINY_FLAGS, *where, *flags, "--trainer.limit_val_batches=0"]) == 0
    (log,) = tmp_path.glob("lewm/*/metrics.csv")
    with log.open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 20 and np.isfinite(losses).all()

"""Runs resumed from damaged checkpoints or on other data, kept in strange places, or robbed of the right to write."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import TINY_FLAGS, flat_columns
from test_fit import fit, run_of

from lewm import checkpoint
from lewm.cli import main
from lewm.datasets.schema import open_source

STEPS = ("--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0")
DAMAGED = "lewm: skipped a checkpoint that cannot be read: "

# `lewm` by one who obeys the rights of files; the folder of the checkpoint LOSE is closed once that is written.
CHILD = """
import os, sys
from pathlib import Path
from lewm import checkpoint
from lewm.cli import main

write = checkpoint.write
def and_close(content, path):
    write(content, path)
    if Path(path).name == os.environ.get("LOSE"):
        Path(path).parent.chmod(0o555)

checkpoint.write = and_close
sys.exit(main(sys.argv[1:]))
"""
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # of Linux: what lets the superuser write where nobody may


@pytest.fixture
def data(write_flat) -> Path:
    return write_flat(flat_columns([30] * 16))


def without_rights(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    prctl = ctypes.CDLL(None).prctl
    return subprocess.run(
        [sys.executable, "-c", CHILD, *argv],
        capture_output=True,
        text=True,
        env=os.environ | env,
        preexec_fn=lambda: prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0),
    )


def state_of(run: Path) -> dict[str, tuple[bytes, int]]:
    """What a run is made of, and when each file was last written."""
    files = [*run.glob("checkpoints/*"), *(run / name for name in ("metrics.csv", "config.yaml", "env.json"))]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.filterwarnings("ignore:step:UserWarning")  # an untrained model counts as collapsed
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_however_it_is_named(
    data, tmp_path, capsys
):
    flags = (*STEPS, "--checkpoint_every=2", "--keep=9")
    assert fit(data, tmp_path, *flags, "--trainer.max_steps=4") == 0
    run = run_of(tmp_path)
    newest = checkpoint.resolve(run)
    assert newest.name == "step=4.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()
    assert main(["validate", f"--resume={run}", "--trainer.limit_val_batches=1"]) == 0
    assert f"{DAMAGED}{newest}" in capsys.readouterr().err
    newest.touch()  # another writing of it, so that it is said again
    assert main(["fit", f"--resume={run}", "--trainer.max_steps=6"]) == 0
    said = capsys.readouterr().err
    assert f"{DAMAGED}{newest}" in said
    assert f"set aside {newest.with_suffix('.damaged')}: it cannot be read" in said
    assert checkpoint.resolve(run).name == "step=6.ckpt"


def test_a_run_does_not_go_on_with_other_data_unless_that_is_allowed_and_stays_as_it_was(
    data, write_flat, tmp_path, capsys
):
    assert fit(data, tmp_path, *STEPS, "--trainer.max_steps=2") == 0
    run, other = run_of(tmp_path), flat_columns([30] * 16)
    other["action"] = other["action"] + 1
    changed = ["fit", f"--resume={run}", f"--data.path={write_flat(other, 'other.h5')}", "--trainer.max_steps=4"]
    before = state_of(run)
    assert {"step=2.ckpt", "metrics.csv"} <= before.keys()
    capsys.readouterr()
    assert main(changed) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lewm: error: ")]
    assert len(errors) == 1
    assert "other.h5 is not the data of the checkpoint; --data.allow_data_change true to go on" in errors[0]
    assert state_of(run) == before
    assert main([*changed, "--data.allow_data_change=true"]) == 0
    assert checkpoint.resolve(run).name == "step=4.ckpt"


def test_a_run_that_loses_the_right_to_write_ends_with_one_line_and_keeps_its_checkpoint(data, tmp_path):
    argv = ["fit", *TINY_FLAGS, *STEPS, f"--data.path={data}", "--data.frameskip=2", "--checkpoint_every=4"]
    argv += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=10"]
    done = without_rights(argv, LOSE="step=4.ckpt")
    run = run_of(tmp_path)
    assert done.returncode == 2, done.stderr
    path = run / "checkpoints" / "step=8.ckpt"
    assert done.stderr.splitlines() == [
        f"lewm: error: cannot write {path}: Permission denied; allow writing there or choose another place"
    ]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step=4.ckpt"]
    assert checkpoint.read(run / "checkpoints" / "step=4.ckpt")["global_step"] == 4


def test_a_read_only_file_and_a_run_whose_names_have_blanks_and_umlauts_train_and_resume(tmp_path):
    place, runs = tmp_path / "Daten für Übung 日本", tmp_path / "Läufe von heute"
    place.mkdir()
    runs.mkdir()
    data = place / "zwei Räume.h5"
    with h5py.File(data, "w") as file:
        for name, values in flat_columns([30] * 16).items():
            file[name] = values
    data.chmod(0o444)
    place.chmod(0o555)
    argv = ["fit", *TINY_FLAGS, *STEPS, f"--data.path={data}", "--data.frameskip=2", "--name=ein Versuch 日本"]
    argv += [f"--trainer.default_root_dir={runs}"]
    done = without_rights([*argv, "--trainer.max_steps=1"])
    assert done.returncode == 0, done.stderr
    (run,) = (runs / "ein Versuch 日本").iterdir()
    done = without_rights(["fit", f"--resume={run}", "--trainer.max_steps=2"])
    assert done.returncode == 0, done.stderr
    assert checkpoint.resolve(run).name == "step=2.ckpt"
    assert (run / "metrics.csv").read_text().count("\n") >= 3
    assert [path.name for path in place.iterdir()] == [data.name]


@pytest.mark.usefixtures("patient")
def test_a_cache_whose_name_has_blanks_and_umlauts_serves_what_the_server_has(server, shards, tmp_path):
    cache = tmp_path / "Ablage für 日本 x"
    near = open_source(shards)
    for _ in range(2):  # fetched, and found
        far = open_source(server.url, cache=str(cache))
        last = len(far.lengths) - 1
        assert (far.frames(last, np.arange(1)) == near.frames(last, np.arange(1))).all()
        assert far.path.parent == cache
    assert server.whole[near.manifest["shards"][-1]["file"]] == 1

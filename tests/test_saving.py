"""Runs that are ended by a signal or cannot save: nothing is lost, and they go on as if nothing had happened."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, flat_columns
from test_fit import final_weights, fit, losses, run_of

from lewm import checkpoint
from lewm.datasets.datamodule import ClipDataset
from lewm.saving import StopOnSignal

TIMES = ("train/clips_per_s", "train/data_wait")
STEPS = (
    "--trainer.max_epochs=-1",
    "--trainer.max_steps=11",
    "--trainer.log_every_n_steps=1",
    "--trainer.val_check_interval=3",
    "--trainer.check_val_every_n_epoch=null",
    "--model.dropout=0.1",
    "--checkpoint_every=4",
)


@pytest.fixture
def data(write_flat) -> Path:
    return write_flat(flat_columns([16] * 10))  # epochs of 5 batches


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    import h5py

    root = tmp_path_factory.mktemp("whole")
    with h5py.File(root / "flat.h5", "w") as file:
        for name, values in flat_columns([16] * 10).items():
            file.create_dataset(name, data=values)
    assert fit(root / "flat.h5", root, *STEPS) == 0
    return run_of(root)


def logged(run: Path) -> list[dict[str, str]]:
    """Rows of the log, each with its step, without times."""
    with (run / "metrics.csv").open() as file:
        found = [{k: v for k, v in row.items() if v and k not in TIMES} for row in csv.DictReader(file)]
    return [row for row in found if row.keys() != {"step"}]


def kill_at_fetch(monkeypatch, number: int, *signals: int) -> None:
    """Send this process signals when the n-th training batch is fetched."""
    fetch, fetched = ClipDataset.__getitem__, []

    def counting(self, clips):
        fetched.append(clips)
        if len(fetched) == number:
            for each in signals:
                os.kill(os.getpid(), each)
        return fetch(self, clips)

    monkeypatch.setattr(ClipDataset, "__getitem__", counting)


@pytest.mark.parametrize("fetch", range(2, 10))  # at an epoch's end and in validation too
def test_a_run_ended_by_a_signal_at_any_batch_goes_on_to_the_same_weights_and_log(
    data, whole, tmp_path, monkeypatch, fetch
):
    with monkeypatch.context() as patched:
        kill_at_fetch(patched, fetch, signal.SIGUSR1 if fetch % 2 else signal.SIGTERM)
        assert fit(data, tmp_path, *STEPS) == 143
    run = run_of(tmp_path)
    stopped = checkpoint.step_of(checkpoint.resolve(run))
    assert 0 < stopped < 11
    assert fit(data, tmp_path, *STEPS, "--resume=auto") == 0
    assert logged(run) == logged(whole)
    a, b = final_weights(run), final_weights(whole)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("step", range(1, 11))
def test_a_run_goes_on_from_any_of_its_checkpoints_to_the_same_weights_log_and_best(data, whole, tmp_path, step):
    assert fit(data, tmp_path, *STEPS, "--checkpoint_every=1", "--keep=20") == 0
    run = run_of(tmp_path)
    for path in checkpoint.newest_first(run):
        if checkpoint.step_of(path) > step:
            path.unlink()
    assert fit(data, tmp_path, *STEPS, "--resume=auto") == 0
    assert logged(run) == logged(whole)
    for a, b in ((final_weights(run), final_weights(whole)), (best_weights(run), best_weights(whole))):
        assert all(torch.equal(a[name], b[name]) for name in b)
    assert [checkpoint.step_of(path) for path in checkpoint.newest_first(run)] == [
        11,
        max(8, step) if step < 11 else 10,
    ]


@pytest.mark.parametrize("end", [5, 7])  # with an epoch, and in its midst
def test_a_run_that_ended_goes_on_for_longer_as_if_it_had_not(data, tmp_path, end):
    fixed = ("--model.schedule_epochs=4",)
    assert fit(data, tmp_path / "whole", *STEPS, *fixed) == 0
    assert fit(data, tmp_path / "part", *STEPS, *fixed, f"--trainer.max_steps={end}") == 0
    assert fit(data, tmp_path / "part", *STEPS, *fixed, "--resume=auto") == 0
    part, whole = run_of(tmp_path / "part"), run_of(tmp_path / "whole")
    assert logged(part) == logged(whole)
    assert all(torch.equal(x, final_weights(whole)[name]) for name, x in final_weights(part).items())


def test_a_run_that_goes_on_from_its_best_sets_later_checkpoints_aside_and_ends_alike(data, whole, tmp_path, capsys):
    assert fit(data, tmp_path, *STEPS) == 0
    run = run_of(tmp_path)
    step = checkpoint.steps_trained(run / "checkpoints" / "best.ckpt")
    assert step < 11
    assert fit(data, tmp_path, *STEPS, f"--resume={run / 'checkpoints' / 'best.ckpt'}") == 0
    assert "set aside step=11.ckpt" in capsys.readouterr().err
    assert logged(run) == logged(whole)
    assert checkpoint.step_of(checkpoint.resolve(run)) == 11
    assert all(torch.equal(x, final_weights(whole)[name]) for name, x in final_weights(run).items())


def test_a_run_goes_on_with_the_learning_rate_and_decay_that_it_is_given(data, tmp_path):
    fixed = ("--model.schedule_epochs=4", "--model.warmup=0")
    assert fit(data, tmp_path / "whole", *STEPS, *fixed) == 0
    assert fit(data, tmp_path / "part", *STEPS, *fixed, "--trainer.max_steps=6") == 0
    flags = ("--resume=auto", "--model.lr=1e-4", "--model.weight_decay=0.5")
    assert fit(data, tmp_path / "part", *STEPS, *fixed, *flags) == 0
    rates, before = (losses(run_of(tmp_path / name), "lr-AdamW") for name in ("part", "whole"))
    assert rates[:6] == before[:6]
    assert rates[6:] == pytest.approx([0.1 * rate for rate in before[6:]])
    (state,) = checkpoint.read(checkpoint.resolve(run_of(tmp_path / "part")))["optimizer_states"]
    assert state["param_groups"][0]["weight_decay"] == 0.5


def test_a_model_without_the_state_of_its_training_is_not_gone_on_from(data, tmp_path, tiny_run, capsys):
    assert fit(data, tmp_path, *STEPS, f"--resume={checkpoint.resolve(tiny_run)}") == 2
    assert "without the state of its training" in capsys.readouterr().err
    assert not list(tmp_path.glob("lewm/*"))


def test_a_damaged_config_of_the_run_is_said_in_one_line(data, tmp_path, capsys):
    assert fit(data, tmp_path, *STEPS, "--trainer.max_steps=2") == 0
    (run_of(tmp_path) / "config.yaml").write_text("")
    assert fit(data, tmp_path, *STEPS, "--resume=auto", "--trainer.precision=null") == 2
    assert "config.yaml is damaged" in capsys.readouterr().err


def test_where_all_of_the_newest_run_is_damaged_an_older_one_is_found(tiny_model, tmp_path):
    for run in ("20260101-000000", "20260102-000000"):
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        checkpoint.save(tiny_model, tmp_path / run / "checkpoints" / "step=3.ckpt")
    damaged = tmp_path / "20260102-000000" / "checkpoints" / "step=3.ckpt"
    damaged.write_bytes(b"junk")
    found, skipped = checkpoint.newest_valid(tmp_path)
    assert (found, skipped) == (tmp_path / "20260101-000000" / "checkpoints" / "step=3.ckpt", [damaged])


def best_weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(run / "checkpoints" / "best.ckpt")["state_dict"]


def test_ctrl_c_saves_once_the_batch_has_ended_and_exits_130(data, tmp_path, monkeypatch):
    kill_at_fetch(monkeypatch, 3, signal.SIGINT)
    handler = signal.getsignal(signal.SIGINT)
    assert fit(data, tmp_path, *STEPS) == 130
    assert checkpoint.step_of(checkpoint.resolve(run_of(tmp_path))) > 0
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_ends_the_run_at_once_without_saving_what_may_be_half_done(data, tmp_path, monkeypatch):
    kill_at_fetch(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    assert fit(data, tmp_path, *STEPS) == 130
    assert not checkpoint.newest_first(run_of(tmp_path))


def test_a_signal_before_the_first_batch_is_not_lost():
    class Trainer:
        received_sigterm = True

    callback = StopOnSignal()
    callback.on_train_start(Trainer(), None)  # type: ignore[arg-type]
    callback._restore()
    assert callback._received == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_workers_alive_until_the_run_has_saved(data, tmp_path, number):
    command = [sys.executable, "-m", "lewm", "fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2"]
    command += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=100000", "--trainer.max_epochs=-1"]
    command += ["--data.num_workers=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("lewm/*/metrics.csv")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == (130 if number == signal.SIGINT else 143), errors
    assert "error" not in errors
    assert checkpoint.step_of(checkpoint.resolve(run_of(tmp_path))) > 0


def test_keeping_fewer_than_two_checkpoints_is_refused(data, tmp_path, capsys):
    assert fit(data, tmp_path, *STEPS, "--keep=1") == 2
    assert "at least 2" in capsys.readouterr().err


def test_a_run_at_its_end_removes_what_a_kill_kept_it_from_removing_and_not_what_is_newer_than_itself(data, tmp_path):
    assert fit(data, tmp_path, *STEPS) == 0
    folder = run_of(tmp_path) / "checkpoints"
    for name in ("step=4.ckpt", "step=9.ckpt", ".step=12.ckpt.1.tmp"):
        shutil.copy(folder / "step=8.ckpt", folder / name)
    assert fit(data, tmp_path, *STEPS, "--trainer.max_steps=8", f"--resume={folder / 'step=8.ckpt'}") == 0
    left = {"best.ckpt", "step=8.ckpt", "step=9.ckpt", "step=11.ckpt"}
    assert {path.name for path in folder.iterdir()} == left | {"step=4.ckpt"}
    assert fit(data, tmp_path, *STEPS, "--resume=auto") == 0
    assert {path.name for path in folder.iterdir()} == left - {"step=8.ckpt"}


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_keeps_what_was_saved(data, tmp_path, monkeypatch, capsys):
    save = torch.save

    def full(content, file):
        if "step=8" in file.name:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    assert fit(data, tmp_path, *STEPS) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "step=8.ckpt: No space left on device: it needs" in line
    run = run_of(tmp_path)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step=4.ckpt", "best.ckpt"}
    monkeypatch.undo()
    assert fit(data, tmp_path, *STEPS, "--resume=auto") == 0


def test_a_checkpoint_that_cannot_be_read_takes_no_place_among_those_kept(data, tmp_path):
    assert fit(data, tmp_path, *STEPS, "--keep=2") == 0
    run = run_of(tmp_path)
    folder = run / "checkpoints"
    shutil.copy(folder / "step=8.ckpt", folder / "step=4.ckpt")  # of a removal that was killed
    (folder / "step=8.ckpt").write_bytes(b"junk")
    assert fit(data, tmp_path, *STEPS, "--keep=2", "--resume=auto") == 0
    kept = checkpoint.newest_first(run)
    assert len(kept) == 2 and all(map(checkpoint.is_valid, kept))
    assert (folder / "step=8.damaged").read_bytes() == b"junk"

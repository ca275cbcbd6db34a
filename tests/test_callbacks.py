"""Probes of validation episodes during training: nothing else changes, and the numbers are those of `lewm probe`."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY_FLAGS, flat_columns
from torch import nn

from lewm import checkpoint
from lewm.callbacks import Throughput, undisturbed
from lewm.cli import main
from lewm.probes.questions import Questions
from lewm.probes.targets import load_quantities

PROBED = ("probe/agent_position_r", "probe/agent_position_mse", "probe/agent_velocity_r", "probe/agent_velocity_mse")
TIMES = ("train/clips_per_s", "train/data_wait")
STEPS = ("--trainer.max_epochs=-1", "--model.dropout=0.1", "--trainer.max_steps=9")


@pytest.fixture
def data(write_flat) -> Path:
    columns = flat_columns([20] * 80)
    row = np.arange(len(columns["state"]))
    columns["state"] = np.stack([np.sin(row / 3), np.cos(row / 5)], axis=1)
    return write_flat(columns)


def words(data: Path, root: Path, *flags: str) -> list[str]:
    common = [*TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", f"--trainer.default_root_dir={root}"]
    return ["fit", *common, *STEPS, *flags]


def fit(data: Path, root: Path, *flags: str) -> Path:
    assert main(words(data, root, *flags)) == 0
    return run_of(root)


def run_of(root: Path) -> Path:
    (run,) = (root / "lewm").iterdir()
    return run


def content(run: Path) -> dict[str, Any]:
    return checkpoint.read(checkpoint.resolve(run))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(run: Path) -> list[dict[str, str]]:
    """What a run logged besides probes and times."""
    found = [{k: v for k, v in row.items() if v and k not in (*PROBED, *TIMES)} for row in rows(run)]
    return [row for row in found if row.keys() != {"step"}]


def probed(run: Path, column: str = PROBED[0]) -> dict[int, float]:
    return {int(row["step"]): float(row[column]) for row in rows(run) if row.get(column)}


def assert_equal(a: Any, b: Any) -> None:
    """Equal bit for bit, and in all that is nested."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("workers", [0, 1])
def test_a_probed_run_is_bit_for_bit_the_run_without_probes(data, tmp_path, workers):
    flags = ("--trainer.log_every_n_steps=1", "--trainer.val_check_interval=4", f"--data.num_workers={workers}")
    flags += ("--trainer.check_val_every_n_epoch=null",)
    plain = fit(data, tmp_path / "plain", *flags)
    probing = fit(data, tmp_path / "probed", *flags, "--probe_every=2")
    assert len(probed(probing)) == 4
    assert logged(plain) == logged(probing)
    a, b = content(plain), content(probing)
    for both in (a, b):
        both.pop("callbacks")  # they name folders, which differ
        both["loops"] = str(both["loops"])
    assert_equal(a, b)


def test_a_run_resumed_with_probes_ends_as_an_uninterrupted_one_without(data, tmp_path):
    flags = ("--trainer.log_every_n_steps=1", "--checkpoint_every=3", "--model.schedule_epochs=5")
    whole = fit(data, tmp_path / "whole", *flags)
    fit(data, tmp_path / "part", *flags, "--trainer.max_steps=6", "--probe_every=3", "--probe_targets=two_room")
    part = fit(data, tmp_path / "part", *flags, "--resume=auto", "--probe_every=2", "--probe_targets=null")
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_equal(content(part)[key], content(whole)[key])
    assert logged(part) == logged(whole)
    assert list(probed(part)) == [2, 5, 7]  # rows of steps 3 and 6, kept, and of step 8


def test_probes_are_logged_at_their_steps_beside_that_steps_loss(data, tmp_path):
    flags = ("--trainer.log_every_n_steps=5", "--trainer.val_check_interval=3", "--trainer.num_sanity_val_steps=1")
    run = fit(data, tmp_path, *flags, "--trainer.check_val_every_n_epoch=null", "--probe_every=3")
    for column in PROBED:
        assert list(probed(run, column)) == [2, 5, 8]  # as validation's rows after steps 3, 6 and 9
    assert [int(row["step"]) for row in rows(run) if row["val/loss"]] == [2, 5, 8]
    assert (run / "log.txt").read_text().count("linear probes on val: agent_position r ") == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["probe_every"] == 3
    assert events(run, PROBED[0]) == pytest.approx(probed(run))
    assert checkpoint.read(run / "checkpoints" / "best.ckpt")["callbacks"]  # chosen by val/loss, as ever
    assert all("probe/" not in str(key) for key in content(run)["callbacks"])


def events(run: Path, tag: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tb"))
    found.Reload()
    return {event.step: event.value for event in found.Scalars(tag)}


def test_without_the_flag_nothing_is_probed(data, tmp_path):
    assert not any(
        column.startswith("probe/")
        for row in rows(fit(data, tmp_path, "--trainer.log_every_n_steps=1"))
        for column in row
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_numbers_are_those_of_the_saved_checkpoint(data, tmp_path, precision):
    run = fit(data, tmp_path, "--probe_every=9", f"--trainer.precision={precision}")
    source = lewm_source(data)
    quantities = load_quantities(None, source)[1]
    model = checkpoint.load(run)
    readings = Questions(source, quantities, model.interface, max_frames=2000, seed=0).ask(model, ("linear",))
    for quantity, both in zip(quantities, readings, strict=True):
        for key in ("r", "mse"):
            assert probed(run, f"probe/{quantity.name}_{key}") == {8: both["linear"].score()[key]}


def lewm_source(data: Path) -> Any:
    from lewm.datasets.schema import open_source

    return open_source(data)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--probe_every=2", "--probe_targets=two_rooms"), "no shipped targets 'two_rooms'"),
        (("--probe_every=2", "--probe_targets=push_t"), "of the column 'state', which has 2"),
        (("--probe_every=2", "--probe_targets=own.yaml"), "no column 'absent'"),
        (("--probe_every=-1",), "--probe_every is -1"),
    ],
)
def test_what_cannot_be_probed_ends_the_run_before_its_first_step(data, tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("[{name: x, column: absent, slice: [0, 1]}]")
    assert_refused(words(data, tmp_path, *flags), capsys, said)
    assert not list(tmp_path.glob("lewm/*/metrics.csv"))
    assert not list(tmp_path.glob("lewm/*/checkpoints/*"))


def test_too_few_validation_episodes_end_the_run_and_say_how_to_train_without_probes(write_flat, tmp_path, capsys):
    data = write_flat(flat_columns([30] * 16))
    assert_refused(words(data, tmp_path, "--probe_every=2"), capsys, "--probe_every 0 trains without probes")
    assert_refused(words(data, tmp_path, "--probe_every=2"), capsys, "at least 3")


def assert_refused(argv: list[str], capsys: Any, said: str) -> None:
    capsys.readouterr()
    assert main(argv) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "lewm: error" in line)
    assert said in line


def test_a_diverged_model_is_not_probed_and_ends_the_run_as_ever(data, tmp_path, capsys):
    flags = ("--model.lr=1e30", "--model.warmup=0", "--trainer.gradient_clip_val=null", "--probe_every=1")
    assert main(words(data, tmp_path, *flags)) == 3
    assert "the loss is nan" in capsys.readouterr().err
    assert "not probed: the features 'embedding' hold NaN" in (run_of(tmp_path) / "log.txt").read_text()


def test_modes_statistics_and_random_states_are_as_before_whatever_happens_inside():
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Dropout(0.5), nn.BatchNorm1d(4))
    net[0].eval()
    net[2].train()
    modes, buffers = [part.training for part in net.modules()], [b.clone() for b in net.buffers()]
    states = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    with pytest.raises(RuntimeError, match="stop"), torch.autocast("cpu"), undisturbed(net):
        out = net(torch.randn(5, 3))
        assert out.dtype == torch.float32 and not out.requires_grad
        assert not any(part.training for part in net.modules())
        np.random.rand(), random.random()  # noqa: NPY002
        raise RuntimeError("stop")
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002


def test_no_bar_is_drawn_over_the_trainers_own(monkeypatch, capsys):
    from lewm.progress import track

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with undisturbed(nn.Linear(1, 1)):
        assert list(track(range(3), "embedding frames")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_time_left_out_counts_neither_as_training_nor_as_waiting():
    meter = Throughput()
    since, ended = meter._since, meter._ended
    meter.leave_out(5)
    assert (meter._since - since, meter._ended - ended) == pytest.approx((5, 5))


@pytest.mark.slow
def test_two_processes_probe_on_the_first_and_neither_waits_forever(data, tmp_path):
    flags = ("--trainer.log_every_n_steps=1", "--trainer.devices=2", "--trainer.strategy=ddp")
    runs = {}
    for name, more in (("plain", ()), ("probed", ("--probe_every=2",))):
        command = [sys.executable, "-m", "lewm", *words(data, tmp_path / name, *flags, *more)]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        runs[name] = run_of(tmp_path / name)
    assert list(probed(runs["probed"])) == [1, 3, 5, 7]
    assert_equal(content(runs["plain"])["state_dict"], content(runs["probed"])["state_dict"])


@pytest.mark.slow
def test_two_processes_refuse_together(data, tmp_path):
    flags = ("--trainer.devices=2", "--trainer.strategy=ddp", "--probe_every=2", "--probe_targets=cube")
    command = [sys.executable, "-m", "lewm", *words(data, tmp_path, *flags)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.count("lewm: error") == 1

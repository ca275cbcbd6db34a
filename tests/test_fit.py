"""Training from the command line to the checkpoint: wiring, resume, ranks, refusals."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY_FLAGS, flat_columns

import lewm
from lewm import checkpoint
from lewm.cli import main
from lewm.errors import UserError


@pytest.fixture
def data(write_flat) -> Path:
    return write_flat(flat_columns([30] * 16))


def fit(data: Path, root: Path, *flags: str) -> int:
    return main(
        ["fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", f"--trainer.default_root_dir={root}", *flags]
    )


def run_of(root: Path) -> Path:
    (run,) = (root / "lewm").iterdir()
    return run


def losses(run: Path, column: str = "train/loss") -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint.resolve(run))["state_dict"]


def test_a_run_leaves_a_folder_with_everything_and_its_loss_falls(data, tmp_path):
    flags = ("--trainer.max_steps=40", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    assert fit(data, tmp_path, *flags, "--trainer.val_check_interval=20", "--trainer.check_val_every_n_epoch=null") == 0
    run = run_of(tmp_path)
    assert {"config.yaml", "env.json", "checkpoints", "metrics.csv", "tb", "log.txt"} <= {p.name for p in run.iterdir()}
    values = losses(run)
    assert len(values) == 40
    assert sum(values[-5:]) < sum(values[:5])
    assert len(losses(run, "val/effective_rank")) == 2
    assert len(losses(run, "train/data_wait")) > 0
    assert losses(run, "train/data_wait")[0] < 1
    log = (run / "log.txt").read_text()
    assert "train: " in log
    assert log.count("effective_rank") == 2
    assert "ended at step 40" in log
    environment = json.loads((run / "env.json").read_text())
    assert environment["data"]["train"]["clips"] > 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["embed_dim"] == 8
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"step=40.ckpt", "best.ckpt"}
    content = torch.load(run / "checkpoints" / "step=40.ckpt", weights_only=True)
    assert content["ClipDataModule"]["clips"] == 40 * 8
    model = lewm.load(run)
    assert (model.interface.frameskip, model.interface.history) == (2, 3)
    assert model.interface.action_mean != (0.0, 0.0)


def test_the_run_folders_config_repeats_the_run(data, tmp_path):
    flags = ("--trainer.max_steps=3", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    fit(data, tmp_path / "a", *flags)
    first = run_of(tmp_path / "a")
    main(["fit", f"--config={first / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path / 'b'}"])
    assert losses(first) == losses(run_of(tmp_path / "b"))


def test_a_resumed_run_ends_in_the_weights_and_the_log_of_an_uninterrupted_one(data, tmp_path):
    # Two epochs and a bit; dropout on, so that random streams count; stopped in the middle of an epoch.
    flags = ["--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1", "--model.dropout=0.1", "--checkpoint_every=5"]
    fit(data, tmp_path / "whole", *flags, "--trainer.max_steps=70")
    fit(data, tmp_path / "part", *flags, "--trainer.max_steps=70")
    part = run_of(tmp_path / "part")
    for path in (part / "checkpoints").iterdir():  # as if the run had died after step 65
        if path.name != "step=65.ckpt":
            path.unlink()
    lines = (part / "metrics.csv").read_text().splitlines()
    (part / "metrics.csv").write_text("\n".join(line for line in lines if not _after(line, lines[0], 64)) + "\n")
    fit(data, tmp_path / "part", *flags, "--trainer.max_steps=70", "--resume=auto")
    assert losses(part) == losses(run_of(tmp_path / "whole"))
    a, b = final_weights(part), final_weights(run_of(tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)


def _after(line: str, header: str, step: int) -> bool:
    value = line.split(",")[header.split(",").index("step")]
    return value.isdigit() and int(value) > step


def test_going_on_from_an_earlier_checkpoint_drops_the_log_and_sets_aside_the_checkpoints_after_it(
    data, tmp_path, capsys
):
    flags = [
        "--trainer.max_epochs=-1",
        "--trainer.log_every_n_steps=1",
        "--checkpoint_every=5",
        "--trainer.max_steps=12",
    ]
    fit(data, tmp_path, *flags)
    run = run_of(tmp_path)
    before, log = final_weights(run), losses(run)
    assert main(["fit", f"--resume={run / 'checkpoints' / 'step=10.ckpt'}"]) == 0  # with the run's own config
    assert "set aside step=12.ckpt" in capsys.readouterr().err
    assert losses(run) == log
    assert all(torch.equal(tensor, before[name]) for name, tensor in final_weights(run).items())


def test_a_flag_beats_a_config_wherever_it_stands(data, tmp_path):
    fit(data, tmp_path, "--trainer.max_steps=2", "--trainer.max_epochs=-1")
    run = run_of(tmp_path)
    argv = [f"--resume={run}", "--trainer.max_steps=3", f"--config={run / 'config.yaml'}"]
    assert main(["fit", *argv]) == 0
    assert run_of(tmp_path) == run
    assert checkpoint.resolve(run).name == "step=3.ckpt"


def test_training_saves_through_our_own_writer(data, tmp_path, monkeypatch, capsys):
    def full(content, path):
        raise UserError(f"cannot write {path}: no space")

    monkeypatch.setattr(checkpoint, "write", full)
    assert fit(data, tmp_path, "--trainer.max_steps=1", "--trainer.max_epochs=-1") == 2
    assert "no space" in capsys.readouterr().err


def test_two_runs_of_one_second_get_folders_of_their_own(data, tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *args: "20260101-000000")
    for _ in range(2):
        assert fit(data, tmp_path, "--trainer.max_steps=1", "--trainer.max_epochs=-1") == 0
    assert sorted(p.name for p in (tmp_path / "lewm").iterdir()) == ["20260101-000000", "20260101-000000-1"]


def test_a_terminated_run_saves_and_can_go_on(data, tmp_path):
    command = [sys.executable, "-m", "lewm", "fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2"]
    command += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=100000", "--trainer.max_epochs=-1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("lewm/*/metrics.csv")):
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.2)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert checkpoint.step_of(checkpoint.resolve(run_of(tmp_path))) > 0


@pytest.mark.parametrize(
    "change", ["--data.split_seed=5", "--data.num_frames=3", "--data.seed=1", "--data.global_batch=4"]
)
def test_a_run_goes_on_only_with_the_split_and_order_it_began_with(data, tmp_path, change, capsys):
    flags = ("--trainer.max_steps=2", "--trainer.max_epochs=-1", "--model.history=2")
    fit(data, tmp_path, *flags)
    for command in ("fit", "test"):
        argv = [command, f"--resume={run_of(tmp_path)}", change]
        assert main(argv) == 2
        assert f"was trained with {change[2:].split('=')[0]}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:step:UserWarning")
def test_statistics_are_the_checkpoints_whatever_data_it_meets(data, write_flat, tmp_path, capsys):
    fit(data, tmp_path, "--trainer.max_steps=3", "--trainer.max_epochs=-1")
    other = flat_columns([30] * 16)
    other["action"] = other["action"] * 7 + 3
    argv = [f"--resume={run_of(tmp_path)}", "--data.allow_data_change=true"]
    printed = []
    for path in (data, write_flat(other, "other.h5")):
        capsys.readouterr()
        assert main(["test", *argv, f"--data.path={path}"]) == 0
        printed.append(next(line for line in capsys.readouterr().out.splitlines() if "pred_loss" in line))
    assert printed[0] != printed[1]  # statistics of the other data would have hidden the change


def test_a_history_longer_than_training_shows_is_refused(data, tmp_path, capsys):
    assert fit(data, tmp_path, "--data.num_frames=3", "--model.history=3") == 2
    assert "train no more than 2" in capsys.readouterr().err


def test_a_cosine_over_more_epochs_than_are_run_also_with_a_limit_on_steps(data, tmp_path):
    flags = ("--trainer.max_steps=12", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    fit(data, tmp_path, *flags, "--model.schedule_epochs=100", "--model.warmup=0")
    rates = losses(run_of(tmp_path), "lr-AdamW")
    assert min(rates) > 0.98e-3


def test_shards_and_file_train_to_the_same_weights(data, tmp_path):
    from lewm.datasets.convert import convert

    convert(data, tmp_path / "shards")
    flags = ("--trainer.max_steps=5", "--trainer.max_epochs=-1")
    fit(data, tmp_path / "a", *flags)
    fit(tmp_path / "shards", tmp_path / "b", *flags)
    a, b = (final_weights(run_of(tmp_path / name)) for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_plain_way_trains_to_the_same_losses(data, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("lewm.fit.keep_freed", lambda: kept.append("of the fast way"))
    flags = ("--trainer.max_steps=8", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    for name in ("false", "true"):
        fit(data, tmp_path / name, *flags, f"--model.plain={name}")
    fast, plain = (losses(run_of(tmp_path / name)) for name in ("false", "true"))
    assert fast == pytest.approx(plain, rel=1e-5)
    assert fast != plain  # the switch does something
    assert kept == ["of the fast way"]


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_losses_and_saves_a_plain_checkpoint(data, tmp_path):
    import lewm

    # Compiled dropout draws in another order. In processes of their own: the shape checks of tests cannot be compiled.
    flags = ["--trainer.max_steps=4", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1", "--model.dropout=0"]
    for name in ("false", "true"):
        command = [
            sys.executable,
            "-m",
            "lewm",
            "fit",
            *TINY_FLAGS,
            f"--data.path={data}",
            "--data.frameskip=2",
            *flags,
        ]
        command += [f"--trainer.default_root_dir={tmp_path / name}", f"--model.compile={name}"]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled = (run_of(tmp_path / name) for name in ("false", "true"))
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert final_weights(plain).keys() == final_weights(compiled).keys()
    frames = torch.zeros(2, 3, 16, 16, 3, dtype=torch.uint8)
    assert torch.isfinite(lewm.load(compiled).encode(frames)).all()


def test_two_processes_follow_one_at_the_same_global_batch(data, tmp_path):
    flags = ["--trainer.max_steps=20", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1"]
    fit(data, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "lewm", "fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2"]
    command += [
        f"--trainer.default_root_dir={tmp_path / 'two'}",
        *flags,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
    ]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    two = run_of(tmp_path / "two")
    assert losses(two) == pytest.approx(losses(run_of(tmp_path / "one")), abs=1e-4)
    assert len(losses(two)) == 20


def test_two_processes_go_on_with_a_run_in_its_folder(data, tmp_path):
    fit(data, tmp_path, "--trainer.max_steps=4", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    run = run_of(tmp_path)
    command = [sys.executable, "-m", "lewm", "fit", f"--resume={run}", "--trainer.max_steps=6"]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert run_of(tmp_path) == run
    assert len(losses(run)) == 6


@pytest.mark.filterwarnings("ignore:step:UserWarning")  # noise cannot be learned, and the run says so
def test_the_learning_rate_rises_and_falls_over_steps_not_epochs(data, tmp_path):
    fit(data, tmp_path, "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1", "--model.warmup=0.1")
    rates = losses(run_of(tmp_path), "lr-AdamW")
    steps = len(losses(run_of(tmp_path)))
    assert len(set(rates)) > steps * 0.9
    assert rates.index(max(rates)) == pytest.approx(0.1 * steps, abs=1)
    assert rates[0] < 0.4e-3
    assert rates[-1] < 0.02e-3


def test_with_lambda_zero_the_loss_is_the_prediction_loss(data, tmp_path):
    flags = ("--trainer.max_steps=2", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    fit(data, tmp_path, *flags, "--model.sigreg_weight=0")
    run = run_of(tmp_path)
    assert losses(run) == losses(run, "train/pred_loss")


def test_the_first_losses_are_those_on_record(data, tmp_path):
    """A change of numerics must explain the new curve: write it to golden/loss_curve.txt."""
    flags = ("--trainer.max_steps=12", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1")
    fit(data, tmp_path, *flags)
    golden = Path(__file__).parent / "golden" / "loss_curve.txt"
    assert losses(run_of(tmp_path)) == pytest.approx([float(x) for x in golden.read_text().split()], rel=1e-4)


@pytest.mark.filterwarnings("ignore:step:UserWarning")
def test_validate_test_and_predict_read_a_run(data, tmp_path, capsys):
    fit(data, tmp_path, "--trainer.max_steps=4", "--trainer.max_epochs=-1")
    run = run_of(tmp_path)
    common = [f"--config={run / 'config.yaml'}", f"--resume={run}"]
    for part in ("validate", "test"):
        capsys.readouterr()
        assert main([part, *common]) == 0
        printed = capsys.readouterr().out
        assert f"{part[:4].replace('vali', 'val')}/effective_rank" in printed
    assert main(["predict", *common]) == 0
    import numpy as np

    with np.load(run / "embeddings.npz") as arrays:
        assert arrays["embedding"].shape[1:] == (4, 8)
        assert len(arrays["index"]) == len(arrays["embedding"]) > 0


@pytest.mark.parametrize("name", [p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.yaml")])
def test_every_shipped_config_trains_once_made_small(data, tmp_path, name):
    small = ("--data.image_size=null", "--trainer.max_steps=1", "--trainer.devices=1", "--trainer.strategy=auto")
    small += ("--trainer.num_nodes=1",)
    small += ("--trainer.val_check_interval=1.0", "--trainer.check_val_every_n_epoch=1", "--name=lewm")
    assert fit(data, tmp_path, f"--config={name}", *small) == 0
    saved = yaml.safe_load((run_of(tmp_path) / "config.yaml").read_text())
    wanted = yaml.safe_load((Path(__file__).parents[1] / "configs" / f"{name}.yaml").read_text())
    for key in ("sigreg_weight", "positions", "schedule_epochs"):
        if key in wanted.get("model", {}):
            assert saved["model"][key] == wanted["model"][key]


def test_bf16_trains(data, tmp_path):
    assert (
        fit(data, tmp_path, "--trainer.max_steps=2", "--trainer.max_epochs=-1", "--trainer.precision=bf16-mixed") == 0
    )


def test_where_no_precision_is_named_the_best_is_taken_and_saved(data, tmp_path, monkeypatch):
    named = [flag for flag in TINY_FLAGS if "precision" not in flag]
    monkeypatch.setattr("lewm.fit.best_precision", lambda accelerator: {"cpu": "bf16-mixed"}[accelerator])
    flags = (
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.max_steps=1",
        f"--data.path={data}",
        "--data.frameskip=2",
    )
    assert main(["fit", *named, *flags]) == 0
    assert yaml.safe_load((run_of(tmp_path) / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.filterwarnings("always:.*is emulated")
def test_a_resumed_run_keeps_the_precision_it_began_with(data, tmp_path, monkeypatch, capsys):
    named = [flag for flag in TINY_FLAGS if "precision" not in flag]
    flags = (f"--trainer.default_root_dir={tmp_path}", f"--data.path={data}", "--data.frameskip=2")
    monkeypatch.setattr("lewm.fit.best_precision", lambda accelerator: "bf16-mixed")
    assert main(["fit", *named, *flags, "--trainer.max_steps=1"]) == 0
    monkeypatch.setattr("lewm.fit.best_precision", lambda accelerator: "32-true")  # other hardware
    assert main(["fit", *named, *flags, "--trainer.max_steps=2", "--resume=auto"]) == 0
    assert "is emulated on this hardware" in capsys.readouterr().err
    assert yaml.safe_load((run_of(tmp_path) / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"


def test_a_nan_loss_stops_the_run_with_exit_code_3_and_names_the_step(data, tmp_path, capsys):
    flags = ("--trainer.max_steps=50", "--trainer.max_epochs=-1", "--model.lr=1e30", "--trainer.gradient_clip_val=null")
    assert fit(data, tmp_path, *flags) == 3
    assert "at step" in capsys.readouterr().err

"""What training makes of bad records, of actions that are no numbers, and of a worker that is killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LENGTHS, flat_columns
from damaged import fit, member, refused, rot, rot_frame

from lewm.cli import main
from lewm.datasets.bad_records import FLOOR, IN_A_ROW, BadRecords, substitute
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.schema import open_source
from lewm.datasets.shard_writer import EpisodeWriter
from lewm.errors import UserError


def test_a_nan_among_the_actions_of_a_shard_names_episode_and_step(make, monkeypatch):
    import lewm.datasets.shard_writer as writer

    columns = flat_columns(LENGTHS)
    columns["action"][3 * 20 + 7, 1] = np.inf
    monkeypatch.setattr(writer, "check_actions", lambda *args: None)
    with EpisodeWriter(path := make().parent / "nan", codec="raw") as opened:
        monkeypatch.setattr(writer, "fingerprint", lambda source: "none")
        for e in range(4):
            rows = slice(20 * e, 20 * e + 20)
            opened.add(columns["pixels"][rows], {"action": columns["action"][rows]}, key=str(e))
    with pytest.raises(UserError, match=r"the action at step 7 of episode 3 \(3\).*only the last row"):
        open_source(path).actions(3)


def test_an_empty_data_set_is_never_written(tmp_path):
    with pytest.raises(UserError, match="no episode was added"), EpisodeWriter(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_record_is_skipped_for_the_same_other_clip_by_any_number_of_workers(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset + m.size - 9)
    about = {"global_batch": 6, "frameskip": 3, "on_bad_record": "skip"}
    with pytest.warns(UserWarning, match=r"clip \d+ is left out, clip \d+ stands in for it: episode 3 .* frame 19"):
        alone, helped = (list(ClipDataModule(str(folder), num_workers=n, **about).train_dataloader()) for n in (0, 1))
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    (bad,) = {int(i) for batch in alone for i in batch.index[batch.weight == 0]}  # the one clip that ends in frame 19
    whole = ClipDataModule(str(make(name="whole")), num_workers=0, **about | {"on_bad_record": "raise"}).train
    wanted = whole[[substitute(bad, 0, len(whole))]]
    shown = next(b.pixels[i] for b in alone for i in torch.flatten((b.index == bad).nonzero()))
    assert torch.equal(shown, wanted.pixels[0])


@pytest.mark.filterwarnings("ignore:clip .* is left out")
def test_training_that_skips_counts_logs_and_resumes_exactly(make, tmp_path, capsys):
    folder = make()
    for e in (3, 6):
        rot_frame(folder, e, 10)  # which four clips of each show

    def run(name: str, *flags: str) -> Path:
        loggers, course = "--trainer.logger=null", "--model.schedule_epochs=1"  # of the learning rate, for both
        always = (
            "--data.on_bad_record=skip",
            "--trainer.max_epochs=-1",
            "--trainer.log_every_n_steps=1",
            loggers,
            course,
        )
        assert main(fit(folder, tmp_path / name, *always, f"--name={name}", *flags)) == 0, capsys.readouterr().err
        (at,) = (tmp_path / name / name).iterdir()
        return at

    whole = run("whole", "--trainer.max_steps=12")
    logged = (whole / "metrics.csv").read_text().splitlines()
    column = logged[0].split(",").index("train/bad_records")
    counts = [float(row.split(",")[column]) for row in logged[1:] if row.split(",")[column]]
    assert max(counts) == counts[-1] >= 1
    half = run("half", "--trainer.max_steps=5")
    again = run("half", "--trainer.max_steps=12", "--resume=auto", "--data.num_workers=1")
    assert again == half
    ends = [max((at / "checkpoints").glob("step=*.ckpt"), key=lambda p: int(p.stem[5:])) for at in (whole, half)]
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in ends)
    assert ends[0].name == ends[1].name
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_too_many_bad_records_end_training():
    few, nobody = BadRecords(500), np.zeros(8, bool)
    clips = np.arange(8)
    for _ in range(1000):  # the same two in every epoch
        few.note(clips, clips < 2)
    assert few.total == 2000
    few.note(clips + 100, nobody)
    with pytest.raises(UserError, match=rf"11 of 500 training clips cannot be read, more than {FLOOR}"):
        few.note(np.arange(50, 59), np.ones(9, bool))
    many = BadRecords(10**6)
    many.note(np.arange(101), np.arange(101) > 1)
    many.note(np.arange(200, 300), np.arange(100) > 98)
    with pytest.raises(UserError, match=f"{IN_A_ROW} clips in a row"):
        many.note(np.arange(300, 399), np.ones(99, bool))


def test_nothing_but_damage_is_never_skipped_forever(make, capsys, tmp_path):
    folder = make("zstd", shard_bytes=2**20)
    for e in range(len(LENGTHS)):
        tar, m = member(folder, e, "frames.lwf")
        for frame in range(20):
            rot(tar, m.offset + 24 + 8 * frame, flip=255)
    message = refused(capsys, fit(folder, tmp_path / "out", "--data.on_bad_record=skip"))
    assert f"and {IN_A_ROW} others cannot be read" in message or "in a row" in message


def test_a_killed_worker_is_named_with_what_to_do_and_nothing_hangs(make, capsys, tmp_path):
    folder, killed = make(), []

    def kill() -> None:
        mine = Path(f"/proc/self/task/{os.getpid()}/children")
        while not (children := [int(pid) for pid in mine.read_text().split() if is_worker(int(pid))]):
            time.sleep(0.02)
        time.sleep(0.3)
        killed.append(children[0])
        os.kill(children[0], signal.SIGKILL)

    def is_worker(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
        except OSError:
            return False

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    endless = ("--trainer.max_epochs=-1", "--trainer.max_steps=1000000", "--trainer.check_val_every_n_epoch=1000000")
    message = refused(capsys, fit(folder, tmp_path / "out", "--data.num_workers=1", *endless))
    thread.join()
    assert f"{killed[0]}" in message
    assert "/dev/shm" in message
    assert "data.num_workers" in message


@pytest.mark.filterwarnings("ignore:clip .* is left out")
def test_two_processes_count_bad_records_of_training_and_validation_as_one_does_and_end_at_the_same(
    make, tmp_path, capsys
):
    folder = make()
    data = ClipDataModule(str(folder), global_batch=8, frameskip=2)
    for e in data.episodes("train")[:3]:
        rot_frame(folder, int(e), 10)  # which four clips of each show: one more than FLOOR allows, in the first epoch
    for frame in (0, 10):  # clip 0, which also pads the last batch, and four more
        rot_frame(folder, int(data.episodes("val")[0]), frame)
    flags = ["--data.on_bad_record=skip", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=1"]
    flags += ["--trainer.val_check_interval=4", "--trainer.check_val_every_n_epoch=null", "--trainer.logger=null"]
    one = refused(capsys, fit(folder, tmp_path, *flags, "--name=one"))
    two = fit(folder, tmp_path, *flags, "--name=two", "--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "lewm", *two]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if line.startswith("lewm: error: ")] == [one]
    assert f"11 of 154 training clips cannot be read, more than {FLOOR}" in one
    train, val = (counted(tmp_path / "one", f"{part}/bad_records") for part in ("train", "val"))
    assert [train, val] == [counted(tmp_path / "two", f"{part}/bad_records") for part in ("train", "val")]
    assert 1 <= train[-1] <= 11
    assert len(val) >= 2
    assert set(val) == {5}


def counted(root: Path, name: str) -> list[float]:
    (table,) = root.glob("*/metrics.csv")
    with table.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]

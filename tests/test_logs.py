"""The log's rows: kept until a resumed run has one to add, whole whatever moment a process ends at."""

from __future__ import annotations

import csv
import errno
import os
import signal
from pathlib import Path

import pytest

from lewm.errors import GuardStop, SignalStop, UserError
from lewm.logs import MetricsFile, full_disk_named, logged_rows


def log(folder: Path, steps: range, before: int | None = None, **more: float) -> MetricsFile:
    """A logger that has written a row for each step."""
    logger = MetricsFile(folder, before)
    for step in steps:
        add(logger, step, **more)
    return logger


def add(logger: MetricsFile, step: int, **more: float) -> None:
    logger.log_metrics({"loss": 1 / (step + 1), **more}, step)
    logger.save()


def steps(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_a_resumed_log_keeps_earlier_rows_and_drops_those_after_the_checkpoint(tmp_path):
    log(tmp_path, range(10))
    log(tmp_path, range(6, 8), before=6)
    assert steps(tmp_path) == list(range(8))


def test_until_a_resumed_run_has_a_row_to_add_its_log_is_not_touched(tmp_path):
    log(tmp_path, range(10))
    before = (tmp_path / "metrics.csv").read_bytes()
    resumed = MetricsFile(tmp_path, 3)
    assert resumed.experiment is resumed.experiment  # as Lightning does before the checkpoint is accepted
    resumed.save()
    resumed.finalize("failed")
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_columns_that_come_later_leave_earlier_rows_as_they_were(tmp_path):
    logger = log(tmp_path, range(3))
    add(logger, 3, validation=0.5)
    add(logger, 4)
    rows = logged_rows(tmp_path / "metrics.csv", None)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row.get("validation") for row in rows] == [None, None, None, "0.5", None]
    assert [float(row["loss"]) for row in rows] == [1 / (step + 1) for step in range(5)]


@pytest.mark.parametrize("before", [None, 5])
@pytest.mark.parametrize("moment", ["replace", "fsync"])
def test_a_process_killed_while_the_log_is_written_anew_loses_no_row(tmp_path, monkeypatch, before, moment):
    logger = log(tmp_path, range(10))
    whole = (tmp_path / "metrics.csv").read_bytes()
    child = os.fork()
    if child == 0:
        setattr(os, moment, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        try:
            add(logger if before is None else MetricsFile(tmp_path, before), 10, validation=0.5)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_a_log_that_cannot_be_written_anew_stays_and_is_named(tmp_path, monkeypatch):
    log(tmp_path, range(10))
    whole = (tmp_path / "metrics.csv").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"metrics.csv: No space left on device"):
        log(tmp_path, range(5, 6), before=5)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_a_row_of_which_only_half_could_be_written_is_taken_back_and_written_whole_later(tmp_path, monkeypatch):
    logger = log(tmp_path, range(3))

    def half(path, *args, **kwargs):
        with path.open("a") as file:
            file.write("0.2")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lewm.logs._write", half)
        with pytest.raises(UserError, match=r"cannot write .*metrics.csv: No space left on device"):
            add(logger, 3)
    assert steps(tmp_path) == [0, 1, 2]
    logger.save()
    assert steps(tmp_path) == [0, 1, 2, 3]


def test_a_last_row_without_an_end_is_left_out_when_a_run_goes_on(tmp_path):
    log(tmp_path, range(13))
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-3])  # step 12 would read as step 1
    assert [row["step"] for row in logged_rows(path, 13)] == [str(step) for step in range(12)]


@pytest.mark.parametrize("stop", [GuardStop("the loss is nan"), SignalStop(signal.SIGTERM)])
def test_what_ended_a_run_is_said_though_its_log_could_not_be_closed_on_a_full_disk(tmp_path, monkeypatch, stop):
    logger = log(tmp_path, range(2))
    logger.log_metrics({"loss": 1.0}, 2)
    monkeypatch.setattr("lewm.logs._write", full)

    def train():
        with full_disk_named(tmp_path):
            try:
                raise stop
            finally:
                logger.save()

    with pytest.warns(UserWarning, match="cannot write .*metrics.csv"), pytest.raises(type(stop)) as caught:
        train()
    assert caught.value is stop


def test_a_full_disk_elsewhere_is_not_called_one_of_the_logs(tmp_path):
    with pytest.raises(OSError, match="No space left"), full_disk_named(tmp_path):
        full()


def full(*args, **how):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

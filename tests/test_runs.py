"""One job's ranks make one choice: of a folder, of a checkpoint, and of whether to go on at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from lewm import checkpoint, runs
from lewm.errors import UserError
from lewm.job import Job, speaks


def on_every_rank(
    do: Callable[[Job], Any], world: int = 3, late: int | None = None, timeout_s: float = 20
) -> list[Any]:
    """What `do` returns or raises on each rank, threads around one store; one of them may come late."""
    store, found = dist.HashStore(), list[Any]([None] * world)
    store.set_timeout(timedelta(seconds=timeout_s))

    def rank(r: int) -> None:
        job = Job(r, world, timeout_s)
        job._store = store
        time.sleep(0.5 if r == late else 0)
        try:
            found[r] = do(job)
        except Exception as error:
            found[r] = error

    threads = [threading.Thread(target=rank, args=(r,)) for r in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_all_ranks_of_a_job_get_one_folder_and_the_next_job_another(tmp_path):
    first, second = (on_every_rank(lambda job: runs.claim(tmp_path, job)) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 1
    assert first != second
    assert len(list(tmp_path.iterdir())) == 2


def test_ranks_resume_from_one_checkpoint_though_a_newer_one_appears_while_they_look(tmp_path, tiny_run, monkeypatch):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    content = checkpoint.read(checkpoint.resolve(tiny_run))
    checkpoint.write(content, folder / "step=1.ckpt")
    looked, one_at_a_time = checkpoint.newest_valid, threading.Lock()

    def and_write_another(*args: Any) -> Any:
        with one_at_a_time:
            found = looked(*args)
            checkpoint.write(content, folder / f"step={1 + len(list(folder.iterdir()))}.ckpt")
        return found

    monkeypatch.setattr(checkpoint, "newest_valid", and_write_another)
    chosen = on_every_rank(lambda job: runs.choose(tmp_path, "auto", job))
    assert chosen == [runs.Run(tmp_path / "run", folder / "step=1.ckpt")] * 3


def test_auto_says_which_newer_run_has_no_checkpoint_to_go_on_from(tmp_path, tiny_model, capsys):
    for name in ("20260101-000000", "20260102-000000", "20260103-000000", "20260103-000000-1"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    chosen = tmp_path / "20260102-000000"
    checkpoint.save(tiny_model, chosen / "checkpoints" / "step=3.ckpt")
    found = runs.choose(tmp_path, "auto")
    assert found == runs.Run(chosen, chosen / "checkpoints" / "step=3.ckpt")
    (line,) = capsys.readouterr().err.splitlines()
    assert f"going on with {chosen}; the newer run 20260103-000000-1 and 1 more ended before its first" in line
    checkpoint.save(tiny_model, tmp_path / "20260103-000000-1" / "checkpoints" / "step=1.ckpt")
    runs.choose(tmp_path, "auto")
    assert capsys.readouterr().err == ""


def test_what_killed_processes_left_in_a_run_is_removed_and_nothing_else(tmp_path):
    for name in (".config.yaml.17.tmp", "config.yaml", ".hidden"):
        (tmp_path / name).touch()
    runs.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "config.yaml"]


def test_rank_0_looks_only_when_the_last_rank_is_there():
    at = {}

    def ask(job: Job) -> str:
        at[job.rank] = time.monotonic()
        return job.decide(lambda: time.monotonic())

    chosen = on_every_rank(ask, late=1)
    assert chosen[0] == chosen[1] == chosen[2] > at[1]


def test_what_rank_0_refuses_all_refuse(tmp_path):
    refused = on_every_rank(lambda job: runs.choose(tmp_path, "not_there.ckpt", job))
    assert [str(error) for error in refused] == ["no such checkpoint or run: not_there.ckpt"] * 3
    assert all(isinstance(error, UserError) for error in refused)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_leaves_takes_the_others_with_it(failing):
    def go(job: Job) -> Any:
        if job.rank == failing:
            job.leave(UserError("no such file: x"))
            return "left"
        return job.decide(lambda: "went on")

    found = on_every_rank(go)
    assert found[failing] == "left"
    assert [str(error) for r, error in enumerate(found) if r != failing] == ["no such file: x"] * 2


def test_ranks_that_never_come_are_waited_for_until_the_timeout_and_said(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "1")

    def stay_away(job: Job) -> Any:
        return None if job.rank == 1 else job.decide(lambda: "went on")

    found = on_every_rank(stay_away, timeout_s=1)
    for rank in (0, 2):
        assert isinstance(found[rank], UserError)
        assert f"rank {rank} waited 1 s at here:1 for the 3 ranks of its job" in str(found[rank])


def test_alone_a_choice_is_made_without_a_store():
    assert Job().decide(lambda: 5) == 5
    with pytest.raises(UserError, match="no such checkpoint"):
        runs.choose(Path("runs"), "not_there.ckpt")


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_before_there_is_a_process_group_rank_0_speaks(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert not speaks()
    monkeypatch.setenv(variable, "0")
    assert speaks()


def test_the_rank_in_the_job_counts_more_than_the_one_on_the_node(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not speaks()

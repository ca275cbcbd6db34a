"""A rank that fails while the others wait for it without end: they leave, and a save is not cut off."""

from __future__ import annotations

import os
import threading
import time
from functools import partial

import pytest
import torch.distributed as dist
from test_nodes import ENDLESS, command, data, of_srun, of_torchrun, ranks  # noqa: F401

from lewm.errors import UserError
from lewm.leaving import FAILED, LeaveTogether
from lewm.module import LeWM


def fail_on(failing: int, error: type[Exception]) -> None:
    """Let one rank fail at step 4, and the others wait there as for a reduction that no lost connection ends."""
    rank, begin = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", ""))), LeWM.on_train_batch_start

    def planted(self, batch, batch_idx):
        if self.global_step == 4 and rank == failing:
            raise error("the fourth batch is odd")
        if self.global_step == 4:
            time.sleep(100_000)
        begin(self, batch, batch_idx)

    LeWM.on_train_batch_start = planted


@pytest.mark.parametrize(
    ("launched", "failing", "error", "code"),
    [(of_torchrun, 1, UserError, 2), (of_srun, 0, UserError, 2), (of_srun, 1, RuntimeError, 1)],
)
def test_where_one_rank_fails_the_other_leaves_though_it_waits_for_ever(
    data,  # noqa: F811
    tmp_path,
    ranks,  # noqa: F811
    launched,
    failing,
    error,
    code,
):
    job = ranks(launched, 2)
    flags = command(data, tmp_path, "--trainer.num_nodes=2", "--trainer.strategy=ddp", *ENDLESS)
    job.start(flags, flags, plant=partial(fail_on, failing, error))
    codes = job.codes([0, 1])
    assert (codes[failing], codes[1 - failing]) == (code, 2), [p.read_text() for p in tmp_path.glob("*.log")]
    lines = job.errors()
    assert lines
    assert all("the fourth batch is odd" in line for line in lines)
    if error is RuntimeError:
        assert any("rank 1 failed: RuntimeError" in line and "--resume auto" in line for line in lines)
    assert [path.name for path in tmp_path.glob("lewm/*/checkpoints/*")] == ["step=3.ckpt"]


@pytest.fixture
def watched(monkeypatch) -> tuple[LeaveTogether, threading.Lock, threading.Event]:
    """A rank's callback, impatient; the lock of a save, and whether the process was ended."""
    callback, ended = LeaveTogether(every_s=0.01, patience_s=0.01), threading.Event()
    callback._store = dist.HashStore()
    monkeypatch.setattr("lewm.leaving.speaks", lambda store: True)
    monkeypatch.setattr(os, "_exit", lambda code: ended.set() if code == 2 else None)
    return callback, threading.Lock(), ended


def watch(callback: LeaveTogether, saving: threading.Lock) -> threading.Thread:
    thread = threading.Thread(target=callback._watch, args=(saving,), daemon=True)
    thread.start()
    return thread


def fail(callback: LeaveTogether) -> None:
    dist.PrefixStore("lewm/0", callback._store).set(FAILED, "rank 1 failed: OSError: gone")


def test_a_save_under_way_is_waited_for(watched, capsys):
    callback, saving, ended = watched
    fail(callback)
    with saving:
        thread = watch(callback, saving)
        assert not ended.wait(0.5)
    thread.join()
    assert ended.is_set()
    assert "lewm: error: rank 1 failed: OSError: gone; see" in capsys.readouterr().err


def test_a_rank_whose_training_ends_by_itself_is_left_alone(watched):
    callback, saving, ended = watched
    callback.patience_s = 60
    fail(callback)
    thread = watch(callback, saving)
    callback.teardown(None, None, "fit")  # type: ignore[arg-type]
    thread.join()
    assert not ended.is_set()


def test_without_a_failure_the_watch_ends_with_the_training(watched):
    callback, saving, ended = watched
    thread = watch(callback, saving)
    assert thread.is_alive()
    callback.teardown(None, None, "fit")  # type: ignore[arg-type]
    thread.join()
    assert not ended.is_set()


@pytest.mark.parametrize("is_over", [True, False])
def test_where_the_store_is_gone_a_rank_leaves_if_it_does_not_end_by_itself(watched, is_over, capsys):
    class Gone:
        def check(self, keys):
            raise dist.DistNetworkError("connection reset")

    callback, saving, ended = watched
    callback._store = dist.HashStore()
    if is_over:
        callback.teardown(None, None, "fit")  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lewm.leaving._of_session", lambda store, session: Gone())
        callback._watch(saving)
    assert ended.is_set() is not is_over
    assert ("rank 0 is gone" in capsys.readouterr().err) is not is_over

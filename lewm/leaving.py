"""A rank that fails alone says so to the others, which leave instead of waiting for it until the timeout."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from lewm.distributed import tells_of_a_lost_rank, world_size
from lewm.errors import GuardStop, SignalStop
from lewm.job import speaks
from lewm.launch import call_off_observer

FAILED, KNOWN_TO = "failed", "failed_known_to"  # the reason; how many ranks know it


class LeaveTogether(Callback):
    """Ends this process with code 2 where another rank has failed and this one would wait for it.

    Gloo's reductions end with an error as soon as a connection does. NCCL's do not, nor can Python interrupt one, and
    srun leaves the other ranks alone: so a thread asks the job's store for word of a failure. What it says is left to
    this rank's own error for a while, and to a checkpoint under way for as long as that takes.

    Args:
        session: which of this process's trainings is meant, where it makes several.
        every_s: seconds between two questions.
        patience_s: seconds for the training's own thread to end by itself.
    """

    def __init__(self, session: int = 0, every_s: float = 1.0, patience_s: float = 5.0) -> None:
        self.session, self.every_s, self.patience_s = session, every_s, patience_s
        self._store: Any = None
        self._over = threading.Event()
        self._knows = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if world_size() > 1:
            # By a connection of its own: a question on the group's waits until an earlier one has its answer.
            self._store = _store().clone()
            saving = trainer.strategy.checkpoint_io.under_way  # type: ignore[attr-defined]
            threading.Thread(target=self._watch, args=(saving,), daemon=True, name="leave-together").start()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._over.set()
        # All ranks agreed on the first two; the third is said by a rank that does not know why either.
        if self._store is None or isinstance(exception, SignalStop | GuardStop) or tells_of_a_lost_rank(exception):
            return
        with suppress(dist.DistError):  # the store went away with rank 0
            self._tell(f"rank {trainer.global_rank} failed: {_one_line(exception)}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._over.set()

    def _tell(self, why: str) -> None:
        store = _of_session(self._store, self.session)
        store.set(FAILED, why)
        self._note(store)
        end = time.monotonic() + 60
        while dist.get_rank() == 0 and store.add(KNOWN_TO, 0) < world_size() and time.monotonic() < end:
            time.sleep(0.1)  # the store ends with rank 0

    def _note(self, store: Any) -> None:
        if not self._knows:
            self._knows = True
            store.add(KNOWN_TO, 1)

    def _watch(self, saving: threading.Lock) -> None:
        store, patience_s = _of_session(self._store, self.session), self.patience_s
        try:
            while not store.check([FAILED]):
                if self._over.wait(self.every_s):
                    return
            why = store.get(FAILED).decode()
            self._note(store)
        except dist.DistError:  # also where it has done its part, and this rank has little left to do
            why, patience_s = "rank 0 is gone", 12 * patience_s
        call_off_observer()
        if not self._over.wait(patience_s):
            with saving:  # and none is begun
                if self._over.is_set():
                    return
                if speaks(self._store):
                    print(f"lewm: error: {advice(why)}", file=sys.stderr, flush=True)
                os._exit(2)


def why_left(session: int) -> str | None:
    """What a rank that failed has said to the others; None where none did, or where the store is gone."""
    try:
        store = _of_session(_store(), session)
        return store.get(FAILED).decode() if store.check([FAILED]) else None
    except (dist.DistError, ValueError):  # ValueError: there is no process group
        return None


def advice(why: str) -> str:
    """The line of a rank that leaves because of another one."""
    return f"{why}; see what it said itself, and go on from the last checkpoint with --resume auto"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _of_session(store: Any, session: int) -> Any:
    return dist.PrefixStore(f"lewm/{session}", store)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]

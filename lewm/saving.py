"""How a Trainer saves: checkpoints whole or not there, between two batches, also where a signal ends the run."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO

from lewm import checkpoint as checkpoints
from lewm.distributed import max_over_ranks
from lewm.errors import SignalStop
from lewm.launch import call_off_observer

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints that are either whole or not there, and of which nothing but tensors and plain values is loaded."""

    def __init__(self) -> None:
        self.under_way = threading.Lock()  # held while one is written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self.under_way:
            checkpoints.write(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return checkpoints.read(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class SaveEvery(Callback):
    """A checkpoint every so many optimiser steps, one of the last, and one where a signal ends the run.

    Saved between two batches, when all that belongs to the earlier one is done: its row is logged, a validation that is
    due has ended and has named its best. Lightning's own callback saves before that, and a run killed in between goes
    on without the row and the validation.

    Args:
        folder: where `step=N.ckpt` goes.
        every: optimiser steps between two.
        keep: how many are kept, the newest.
    """

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self._saved = 0  # the step of the last one
        self._looked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        self._set_damaged_aside(trainer)
        is_there = trainer.strategy.broadcast((self.folder / f"step={step}.ckpt").exists())
        self._saved = step if is_there or step == 0 else -1  # from `best.ckpt`, or from another run's
        self._tidy(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_damaged_aside(trainer)  # of a run that was already at its end, for which nothing else is called
        self._tidy(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        # Every batch is an optimiser step. Lightning's count for the logs may be one ahead after a resume.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if trainer.global_step % self.every == 0:
            self._save_before_batch(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loop = trainer.fit_loop
        is_whole = loop.epoch_loop._num_ready_batches_reached()
        # Lightning counts the epoch as completed, also where a limit on steps ended the run in its midst.
        self._save(trainer, [] if is_whole else _counts(loop.epoch_progress, "processed", "completed"))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # Not after a KeyboardInterrupt: it comes anywhere, also while an optimiser's step has changed half the weights.
        if isinstance(exception, SignalStop):
            self._save_before_batch(trainer)

    def _save_before_batch(self, trainer: L.Trainer) -> None:
        # The batch at hand is counted as ready: a run that goes on begins with it.
        self._save(trainer, _counts(trainer.fit_loop.epoch_loop.batch_progress, "ready"))

    def _save(self, trainer: L.Trainer, too_high: list[tuple[Any, str]]) -> None:
        """Save with those counts of Lightning's lowered by one."""
        if trainer.fast_dev_run or trainer.global_step == self._saved:  # type: ignore[attr-defined]
            return
        for count, name in too_high:
            setattr(count, name, getattr(count, name) - 1)
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")
        for count, name in too_high:
            setattr(count, name, getattr(count, name) + 1)
        self._saved = trainer.global_step
        self._tidy(trainer)

    def _set_damaged_aside(self, trainer: L.Trainer) -> None:
        """A checkpoint that cannot be read takes no place among those that are kept; looked for once."""
        if self._looked or not trainer.is_global_zero:
            return
        self._looked = True
        for path in checkpoints.newest_first(self.folder.parent):
            if not checkpoints.is_valid(path):
                path.rename(path.with_suffix(".damaged"))
                print(f"lewm: set aside {path.with_suffix('.damaged')}: it cannot be read", file=sys.stderr)

    def _tidy(self, trainer: L.Trainer) -> None:
        """Remove what a killed save left, and checkpoints beyond those to keep, of which a killed removal leaves one.

        Those later than where the run stands are not counted: a run that goes on from an earlier one sets them aside.
        """
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()
        behind = [p for p in checkpoints.newest_first(self.folder.parent) if _step(p) <= trainer.global_step]
        for old in behind[self.keep :]:
            trainer.strategy.remove_checkpoint(str(old))


def _step(path: Path) -> int:
    step = checkpoints.step_of(path)
    assert step is not None  # those without one are not among the newest
    return step


def _counts(progress: Any, *names: str) -> list[tuple[Any, str]]:
    return [(count, name) for count in (progress.current, progress.total) for name in names]


class StopOnSignal(Callback):
    """Ends the run between two batches, all ranks at the same one, where any got SIGTERM, SIGUSR1 or Ctrl-C.

    Ranks get a scheduler's signal at different moments; one that left alone would leave the others waiting for it. A
    validation under way is ended first. A second Ctrl-C ends the run at once; it goes on from its newest checkpoint.
    """

    def __init__(self) -> None:
        self._received = self._agreed = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._before = {number: signal.signal(number, self._receive) for number in STOPPING}
        if trainer.received_sigterm:  # before the first batch, by Lightning's handler
            self._received = signal.SIGTERM

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._agreed = self._received
        if trainer.world_size > 1:
            self._agreed = int(max_over_ranks(torch.tensor(self._received, device=pl_module.device)))

    def on_train_batch_start(self, *args: Any) -> None:
        # Here and not where it was agreed: what the last batch logged has been written, validation has ended.
        if self._agreed:
            raise SignalStop(self._agreed)

    def on_train_end(self, *args: Any) -> None:
        self._restore()

    def on_exception(self, *args: Any) -> None:
        call_off_observer()  # whatever it is, all ranks leave
        self._restore()

    def _receive(self, number: int, frame: Any) -> None:
        if number == self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not one of Python's
        self._before = {}

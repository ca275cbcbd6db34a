"""What a Trainer is given besides the module: the atomic checkpoint writer, throughput, the last save."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lewm import checkpoint as checkpoints


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints that are either whole or not there, and of which nothing but tensors and plain values is loaded."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        checkpoints.write(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return checkpoints.read(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Throughput(Callback):
    """Logs clips per second and the share of time in which training waited for data."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._since = self._ended = time.perf_counter()
        self._waited, self._batches = 0.0, 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._ended = time.perf_counter()
        self._batches += 1
        if _is_logged(trainer):
            module, seconds = trainer.lightning_module, self._ended - self._since
            clips = self._batches * trainer.datamodule.global_batch  # type: ignore[attr-defined]
            module.log("train/clips_per_s", clips / seconds, prog_bar=True)
            module.log("train/data_wait", self._waited / seconds, prog_bar=True)
            self._begin()


class SaveAtEnd(Callback):
    """A checkpoint of the last step, also where a person or the system interrupts the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.global_step > 0:
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        # Asked of the trainer's own record, equal on every rank, and not of the disk, where a stale one may lie.
        saved = {getattr(callback, "_last_global_step_saved", None) for callback in trainer.checkpoint_callbacks}
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if not trainer.fast_dev_run and not (trainer.global_step in saved and path.exists()):  # type: ignore[attr-defined]
            trainer.save_checkpoint(path)


class PeakMemory(Callback):
    """Logs the accelerator's peak memory in GiB, where there is one."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if torch.cuda.is_available() and _is_logged(trainer):
            trainer.lightning_module.log("train/peak_gib", torch.cuda.max_memory_allocated() / 2**30)


def _is_logged(trainer: L.Trainer) -> bool:
    return trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]

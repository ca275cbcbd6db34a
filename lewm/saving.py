"""How a Trainer saves: checkpoints whole or not there, one at the end, one where a signal ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
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

"""The count of clips that were left out as bad records: over all ranks, judged and logged beside training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lewm.clip import ClipBatch
from lewm.datasets.bad_records import BadRecords
from lewm.distributed import gather_over_ranks


class CountBadRecords(Callback):
    """Counts clips that were left out, over all ranks, and logs the count as train/, val/ and test/bad_records.

    Of training since this process began; of an evaluation in each pass. Every rank counts the global batch, so that
    all end at the same one.
    """

    def __init__(self, num_clips: Callable[[str], int]) -> None:
        self._num_clips = num_clips  # of a part of the split
        self._training: BadRecords | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        self._training = self._training or BadRecords(self._num_clips("train"))
        # (ranks, b) to (b, ranks): the order before it was divided
        index, bad = (x.T.flatten() for x in _left_out(batch))
        self._training.note(index.numpy(), bad.numpy())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        assert self._training is not None
        pl_module.log("train/bad_records", float(self._training.total))

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._evaluated = BadRecords(self._num_clips("val"), "validation")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._evaluated = BadRecords(self._num_clips("test"), "test")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: ClipBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        index, bad = (x.flatten() for x in _left_out(batch))
        real = max(
            0, self._evaluated.num_clips - batch_idx * len(index)
        )  # behind them stands padding, of weight 0 as well
        self._evaluated.note(index[:real].numpy(), bad[:real].numpy())

    on_test_batch_start = on_validation_batch_start

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val/bad_records", float(self._evaluated.total), sync_dist=True, reduce_fx="max")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("test/bad_records", float(self._evaluated.total), sync_dist=True, reduce_fx="max")


def _left_out(batch: ClipBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the clips of all ranks, and which have weight 0: (ranks, b) each."""
    return gather_over_ranks(batch.index).cpu(), gather_over_ranks(batch.weight).cpu() == 0

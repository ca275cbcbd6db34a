"""What a Trainer is given to measure with: throughput, memory, probes of validation episodes."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from lewm.errors import UserError
from lewm.progress import silence

if TYPE_CHECKING:
    from lewm.probes.questions import Questions

LOG = logging.getLogger("lewm")


class Throughput(Callback):
    """Logs clips per second and the share of time in which training waited for data."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._since = self._ended = time.perf_counter()
        self._waited, self._batches = 0.0, 0

    def leave_out(self, seconds: float) -> None:
        """Do not count seconds that just went by, neither as training nor as waiting."""
        self._since += seconds
        self._ended += seconds

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


class PeakMemory(Callback):
    """Logs the accelerator's peak memory in GiB, where there is one."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if torch.cuda.is_available() and _is_logged(trainer):
            trainer.lightning_module.log("train/peak_gib", torch.cuda.max_memory_allocated() / 2**30)


class ProbeValidation(Callback):
    """Logs how well linear probes read physical quantities on validation episodes; training is not disturbed.

    As `lewm probe` does it for several checkpoints: fitted on train episodes, in float32 and evaluation mode. Logged as
    `probe/NAME_r` and `probe/NAME_mse` (standardised), past the module, so that no checkpoint is chosen by them.

    Args:
        every: optimiser steps between probes.
        targets: a shipped name or a YAML file; None for the shipped ones that fit best.
        max_frames: frames used of each part, evenly spread.
        seed: which train episodes choose the probes' strength.
    """

    def __init__(self, every: int, targets: str | None, max_frames: int = 2000, seed: int = 0) -> None:
        if every < 1:
            raise UserError(f"--probe_every is {every}; it must be at least 1 optimiser step, or 0 for no probes")
        self.every, self.targets, self.max_frames, self.seed = every, targets, max_frames, seed
        self._asked: Questions | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from lewm.probes.questions import Questions
        from lewm.probes.targets import load_quantities

        # On every rank, so that a refusal ends them all; a rank that went on alone would wait for the others forever.
        try:
            with undisturbed(pl_module):
                source, model = trainer.datamodule.source, _model_of(pl_module)  # type: ignore[attr-defined]
                _, quantities = load_quantities(self.targets, source)
                about = {"max_frames": self.max_frames, "seed": self.seed}
                self._asked = Questions(source, quantities, model.interface, **about)
        except UserError as error:
            why = str(error).replace("--targets", "--probe_targets")  # what `lewm probe` calls them
            raise UserError(f"{why}; --probe_every 0 trains without probes") from error

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        # Other ranks wait at their next reduction. Every batch is an optimiser step: accumulation is refused.
        if not trainer.is_global_zero or trainer.global_step % self.every:
            return
        assert self._asked is not None
        begun = time.perf_counter()
        try:
            with undisturbed(pl_module):
                readings = [both["linear"] for both in self._asked.ask(_model_of(pl_module), ("linear",))]
                scores = {r.values.quantity.name: r.score(seed=self.seed) for r in readings}
        except (UserError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            # As of a model that diverged: training says so itself, in its own time.
            LOG.warning(f"step {trainer.global_step}, not probed: {error}")
        else:
            _log_probes(trainer, scores)
        _leave_out(trainer, time.perf_counter() - begun)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, autocast or progress bars; modes and random states are then as before."""
    modes = [(part, part.training) for part in module.modules()]
    device = next(module.parameters()).device
    own = [device] if device.type == "cuda" else []  # those of other ranks' devices would be woken by being asked
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    module.eval()
    try:
        with torch.random.fork_rng(own), torch.no_grad(), torch.autocast(device.type, enabled=False), silence():
            yield
    finally:
        for part, training in modes:
            part.training = training
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _model_of(pl_module: Any) -> Any:
    return pl_module.model


def _log_probes(trainer: L.Trainer, scores: dict[str, dict[str, Any]]) -> None:
    """Into every logger, in the row of the step that made these weights: like the loss, step N is row N - 1."""
    numbers = {f"probe/{name}_{key}": found[key] for name, found in scores.items() for key in ("r", "mse")}
    for logger in trainer.loggers:
        logger.log_metrics(numbers, step=trainer.global_step - 1)
        logger.save()
    figures = ", ".join(f"{name} r {found['r']:.3f} mse {found['mse']:.3f}" for name, found in scores.items())
    LOG.info(f"step {trainer.global_step}, linear probes on val: {figures}")


def _leave_out(trainer: L.Trainer, seconds: float) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Throughput):
            callback.leave_out(seconds)


def _is_logged(trainer: L.Trainer) -> bool:
    return trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]

"""The LightningModule: wires model, objective, optimiser and logging; holds no mathematics of its own."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lewm.augment import Photometric
from lewm.checkpoint import describe
from lewm.clip import ClipBatch, Interface
from lewm.errors import GuardStop, UserError
from lewm.health import HealthMeter, verdicts
from lewm.loss.prediction import prediction_loss
from lewm.loss.sigreg import SIGReg
from lewm.model.world_model import WorldModel
from lewm.schedule import lr_factor

VERDICTS_FROM = 100  # steps before which nothing has been learned and BatchNorm's running statistics lag


class LeWM(L.LightningModule):
    """Train a `WorldModel` end to end with two loss terms: prediction + sigreg_weight * SIGReg.

    Args:
        interface: what the data say about how the model is fed; the command line fills it in.
        history: frames the predictor sees; null for all frames of a training clip but the last.
        sigreg_weight: lambda, the method's one hyperparameter; it belongs to a global batch size.
        sigreg_directions: number M of random directions, drawn anew each step.
        sigreg_knots: knots of the trapezoid rule.
        sigreg_range: first and last knot.
        lr: peak learning rate of AdamW.
        weight_decay: decay of every parameter.
        warmup: share of the schedule's optimiser steps in which the learning rate rises linearly from 0.
        schedule_epochs: epochs over which the cosine falls to 0; null for the run's own length.
        augment_colour: share of training frames whose colours are mixed, each frame by itself; 0 for none.
        augment_light: largest change of their contrast and brightness, as a share; 0 for none.
        plain: take none of the fast paths (SIGReg's recurrence, the short last block of a ViT, rollouts that remember):
            the same to rounding, slower.
        compile: have encoder and predictor compiled by `torch.compile` at the first step; checkpoints stay plain.
        seed: seed of directions, dropout and augmentation.
        model: arguments of `WorldModel`.
    """

    def __init__(
        self,
        interface: Interface,
        *,
        history: int | None = None,
        sigreg_weight: float = 0.09,
        sigreg_directions: int = 1024,
        sigreg_knots: int = 17,
        sigreg_range: tuple[float, float] = (0.0, 3.0),
        lr: float = 5e-5,
        weight_decay: float = 1e-3,
        warmup: float = 0.01,
        schedule_epochs: int | None = None,
        augment_colour: float = 0.0,
        augment_light: float = 0.0,
        plain: bool = False,
        compile: bool = False,
        seed: int = 0,
        **model: Any,
    ) -> None:
        super().__init__()
        if history is not None and history < 1:
            raise UserError(f"model.history is {history}; it must be at least 1")
        if history is not None and history > interface.history:
            raise UserError(
                f"model.history is {history}, but clips of {interface.history + 1} frames train no more than "
                f"{interface.history}; raise data.num_frames or lower model.history"
            )
        self.model = WorldModel(replace(interface, history=history or interface.history), **model)
        if plain:
            self.model.take_plain_paths()
        self.sigreg = SIGReg(
            directions=sigreg_directions,
            knots=sigreg_knots,
            knot_range=sigreg_range,
            seed=seed,
            recurrence=not plain,
        )
        self.augment = Photometric(colour=augment_colour, light=augment_light, seed=seed)
        self.sigreg_weight, self.lr, self.weight_decay = sigreg_weight, lr, weight_decay
        self.warmup, self.schedule_epochs, self.seed = warmup, schedule_epochs, seed
        self.compiles = compile
        self.objective = {  # what a loss depends on besides the model, as plain values
            "sigreg_weight": sigreg_weight,
            "sigreg_directions": sigreg_directions,
            "sigreg_knots": sigreg_knots,
            "sigreg_range": list(sigreg_range),
            "plain": plain,
            "augment_colour": augment_colour,
            "augment_light": augment_light,
            "seed": seed,
        }
        self.last_losses: dict[str, Tensor] = {}
        self.meter = HealthMeter(self.sigreg, sigreg_weight)

    def losses(self, batch: ClipBatch, step: int) -> tuple[Tensor, Tensor]:
        """Prediction loss and SIGReg of a batch; every prefix of the history predicts its next frame."""
        z = self.model.encode(batch.pixels)
        predicted = self.model.predict(z[:, :-1], batch.actions)
        return prediction_loss(predicted, z[:, 1:]), self.sigreg(z, step)

    def on_fit_start(self) -> None:
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        schedules = [c for c in callbacks if isinstance(c, GradientAccumulationScheduler)]
        _refuse_accumulation(any(s.going_to_accumulate_grad_batches() for s in schedules))
        _refuse_accumulation(self.trainer.accumulate_grad_batches != 1)
        if self.compiles:
            self.model.compile_parts()

    def on_train_batch_start(self, batch: ClipBatch, batch_idx: int) -> None:
        _refuse_accumulation(self.trainer.accumulate_grad_batches != 1)  # callbacks may change it at any time
        # Dropout depends on (seed, step, rank) alone: a resumed run draws what an uninterrupted one does.
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))

    def training_losses(self, batch: ClipBatch, step: int) -> dict[str, Tensor]:
        """`loss` to minimise and its two terms, of augmented clips."""
        batch = batch._replace(pixels=self.augment(batch.pixels, batch.index, step))
        pred_loss, sigreg = self.losses(batch, step)
        return {"loss": pred_loss + self.sigreg_weight * sigreg, "pred_loss": pred_loss, "sigreg": sigreg}

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        found = self.training_losses(batch, self.global_step)
        self.last_losses = {name: value.detach() for name, value in found.items()}
        self.log("train/loss", self.last_losses["loss"], prog_bar=True, sync_dist=True)
        self.log("train/pred_loss", self.last_losses["pred_loss"], sync_dist=True)
        self.log("train/sigreg", self.last_losses["sigreg"])  # the global batch's own, equal on every rank
        return found["loss"]

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        self.meter.update(self.model, batch, batch_idx)

    def test_step(self, batch: ClipBatch, batch_idx: int) -> None:
        self.meter.update(self.model, batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_health("val")

    def on_test_epoch_end(self) -> None:
        self._log_health("test")

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        real = batch.weight > 0
        return {"index": batch.index[real], "embedding": self.model.encode(batch.pixels)[real].float()}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        total = self.schedule_steps()
        warmup = max(1, round(self.warmup * total)) if self.warmup > 0 else 0
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, total=total, warmup=warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def schedule_steps(self) -> int:
        """Optimiser steps over which the learning rate runs its course."""
        if self.schedule_epochs is not None:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            return self.schedule_epochs * (len(data.train) // data.global_batch)
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("the learning rate needs to know the run's length: set trainer.max_epochs or max_steps")
        return int(steps)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Statistics are the checkpoint's, whatever data it meets now.
        self.model.adopt(Interface.from_dict(checkpoint["lewm"]["interface"]))
        # Rate and decay are this run's, if it names others: what a run that diverged goes on with.
        for group in (g for state in checkpoint.get("optimizer_states", []) for g in state["param_groups"]):
            if group["initial_lr"] != self.lr:
                group["lr"] *= self.lr / group["initial_lr"]
            group["initial_lr"], group["weight_decay"] = self.lr, self.weight_decay
        for state in checkpoint.get("lr_schedulers", []):
            state["base_lrs"] = [self.lr] * len(state["base_lrs"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lewm"] = describe(self.model)

    def _log_health(self, part: str) -> None:
        if not self.meter.sums:
            return
        health = self.meter.compute()
        # Before a callback takes it for the best: NaN compares with nothing.
        if self.trainer.state.fn == "fit" and not torch.isfinite(health["loss"]):
            raise GuardStop(
                f"the validation loss is {float(health['loss'])} at step {self.global_step}: the weights have "
                "diverged; lower model.lr, or go on from an earlier checkpoint with --resume"
            )
        for name, value in health.items():
            self.log(f"{part}/{name}", value.float())
        figures = ", ".join(f"{name} {float(value):.4g}" for name, value in sorted(health.items()))
        logging.getLogger("lewm").info(f"step {self.global_step}, {part}: {figures}")
        if self.global_step >= VERDICTS_FROM or self.trainer.state.fn != "fit":  # of a checkpoint it is asked for
            for verdict in verdicts({name: float(value) for name, value in health.items()}):
                rank_zero_warn(f"step {self.global_step}: {verdict}")


def _refuse_accumulation(is_asked_for: bool) -> None:
    if is_asked_for:
        raise UserError(
            "trainer.accumulate_grad_batches must be 1: SIGReg is a statistic of the whole global batch, which "
            "accumulation would cut into parts; use more ranks, or a smaller data.global_batch"
        )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of everything random in one rank's training step: below 2^56."""
    key = f"{seed}:{step}:{rank}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")

"""Stops training where the loss or a gradient is not finite, before it reaches the weights, and keeps the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lewm import checkpoint
from lewm.clip import ClipBatch
from lewm.distributed import gather_over_ranks, max_over_ranks
from lewm.errors import GuardStop, UserError
from lewm.launch import call_off_observer
from lewm.paths import make_folder

NUM_NAMED = 8  # clips named in the message; the file holds all


class FiniteGuard(Callback):
    """Stops all ranks together at a loss or gradient that is NaN or infinite; logs the gradient norm otherwise.

    The global batch, the weights it met and all that the loss depends on go to `folder/step=N.ckpt`, which
    `lewm fit --replay` runs again. Gradients are those before clipping. With a gradient scaler (float16) only the loss
    is watched, as the scaler itself skips steps of infinite gradients.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batch: ClipBatch | None = None
        self._last = "none"  # finite gradient norm

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        norm = total_norm(pl_module)
        is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        watched = pl_module.last_losses["loss"] if is_scaled else pl_module.last_losses["loss"] + norm
        if max_over_ranks((~torch.isfinite(watched)).to(torch.uint8)):
            self._stop(trainer, pl_module)
        pl_module.log("train/grad_norm", norm)
        self._last = norm

    def _stop(self, trainer: L.Trainer, module: Any) -> None:
        call_off_observer()  # other ranks may have left before the file is written
        step, losses = trainer.global_step, {name: float(x) for name, x in module.last_losses.items()}
        assert self._batch is not None
        batch, own = gathered(self._batch), self._batch
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in norms_of_parts(module.model).items())
        clips = gather_over_ranks(own.index).T.flatten().tolist()
        more = f" and {len(clips) - NUM_NAMED} more" if len(clips) > NUM_NAMED else ""
        path = self.folder / f"step={step}.ckpt"
        kept = f"`lewm fit --replay {path}` runs this step again"
        why_not = self._keep(path, module, batch, step, str(trainer.precision)) if batch is not None else ""
        if max_over_ranks(own.weight.new_tensor(float(bool(why_not)))):  # and nobody leaves before it is written
            kept = why_not or "the batch could not be kept"
        raise GuardStop(
            f"the loss is {losses['loss']:.4g} at step {step} (prediction {losses['pred_loss']:.4g}, SIGReg "
            f"{losses['sigreg']:.4g}); gradient norms: {norms}, of all in the step before {_plain(self._last)}; clips "
            f"{clips[:NUM_NAMED]}{more}; {kept}; go on from an earlier checkpoint with --resume and a lower --model.lr"
        )

    def _keep(self, path: Path, module: Any, batch: ClipBatch, step: int, precision: str) -> str:
        """Write the file; why it could not be written, if so."""
        about = {"step": step, "precision": precision, "objective": module.objective}
        content = {
            "lewm": checkpoint.describe(module.model),
            "state_dict": {f"model.{name}": x for name, x in module.model.state_dict().items()},
            "replay": about | {"batch": batch._asdict()},
        }
        try:
            make_folder(self.folder)
            checkpoint.write(content, path)
        except UserError as error:
            return f"the batch could not be kept ({error})"
        return ""


def total_norm(module: nn.Module) -> Tensor:
    """L2 norm of all gradients: a scalar, NaN or infinite where one of them is."""
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def norms_of_parts(model: nn.Module) -> dict[str, float]:
    """L2 norm of the gradients of each part of a model."""
    return {name: float(total_norm(part)) for name, part in model.named_children()}


def gathered(batch: ClipBatch) -> ClipBatch | None:
    """The global batch in its order on rank 0, in main memory; None on the others, which send it theirs.

    Rank r holds every world-th clip from the r-th on, and each rank as many. They come clip by clip: a batch of a
    thousand GPUs fits on none of them.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        fields = [_gathered(x.detach()) for x in batch]
        return ClipBatch(*fields) if dist.get_rank() == 0 else None  # type: ignore[arg-type]
    return ClipBatch(*(x.detach().cpu() for x in batch))


def _gathered(x: Tensor) -> Tensor | None:
    """Rows of all ranks, (b, ...), as (b ranks, ...) on rank 0; None on the others."""
    world, is_first = dist.get_world_size(), dist.get_rank() == 0
    whole = torch.empty((len(x) * world, *x.shape[1:]), dtype=x.dtype) if is_first else None
    for i in range(len(x)):
        row = x[i].contiguous()
        received = [torch.empty_like(row) for _ in range(world)] if is_first else None
        dist.gather(row, received, dst=0)
        if whole is not None and received is not None:
            whole[i * world : (i + 1) * world] = torch.stack(received).cpu()
    return whole


def _plain(norm: Any) -> str:
    return norm if isinstance(norm, str) else f"{float(norm):.3g}"

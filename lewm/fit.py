"""`lewm fit`, `validate`, `test` and `predict`: LightningCLI around our data, model and run folder."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveFloat
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lewm import checkpoint, runs
from lewm.allocator import keep_freed
from lewm.callbacks import PeakMemory, ProbeValidation, Throughput
from lewm.datasets.datamodule import ClipDataModule
from lewm.distributed import tells_of_a_lost_rank
from lewm.environment import write_environment
from lewm.errors import GuardStop, SignalStop, UserError
from lewm.guard import FiniteGuard
from lewm.launch import check_ranks, job_of_launcher
from lewm.leaving import LeaveTogether, advice, why_left
from lewm.logs import MetricsFile, close_log, full_disk_named, open_log
from lewm.module import LeWM
from lewm.paths import make_folder, written_atomically
from lewm.precision import FULL, MIXED, best_precision
from lewm.replay import replay
from lewm.saving import AtomicCheckpointIO, SaveEvery, StopOnSignal
from lewm.settings import saved_precision, with_configs

LOG = logging.getLogger("lewm")
EXAMPLES = {
    "fit": "Train a world model. Example: lewm fit --config demo --data.path data/two_room --trainer.max_steps 500",
    "validate": "Losses and health on the validation split. Example: lewm validate --resume runs/demo",
    "test": "Losses and health on the test split. Example: lewm test --resume runs/demo",
    "predict": "Write the test split's embeddings. Example: lewm predict --resume runs/demo",
}
PARTS = {"validate": "val", "test": "test", "predict": "test"}
REPLAY = "run again the step at which a run stopped: the file that it named, and no other flags"
PROBE_EVERY = "optimiser steps between linear probes of validation episodes, which do not change training; 0: none"
TIMEOUT = "seconds without an answer after which a rank takes another one for lost and leaves"
PROBE_TARGETS = "what they read: a shipped name (two_room, push_t, reacher, cube) or a YAML file; null: what fits best"


class Session(LightningCLI):
    """Parses the command line, opens the data, builds the model for it and the trainer for the run's folder."""

    def __init__(self, command: str, argv: list[str]) -> None:
        self.command = command
        super().__init__(
            LeWM,
            ClipDataModule,
            run=False,
            args=with_configs(argv),
            parser_kwargs={"exit_on_error": False, "prog": f"lewm {command}", "description": EXAMPLES[command]},
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--name", type=str, default="lewm", help="runs are kept in trainer.default_root_dir/NAME")
        parser.add_argument("--resume", type=str | None, default=None, help="`auto`, a checkpoint or a run folder")
        parser.add_argument("--replay", type=str | None, default=None, help=REPLAY)
        parser.add_argument("--checkpoint_every", type=int, default=1000, help="optimiser steps between checkpoints")
        parser.add_argument("--keep", type=int, default=2, help="how many of them are kept, 2 at least")
        parser.add_argument("--timeout_s", type=PositiveFloat, default=600.0, help=TIMEOUT)
        parser.add_argument("--probe_every", type=int, default=0, help=PROBE_EVERY)
        parser.add_argument("--probe_targets", type=str | None, default=None, help=PROBE_TARGETS)
        parser.link_arguments("data.interface", "model.interface", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        self.runs = Path(self.config.trainer.default_root_dir or "runs") / self.config.name
        self.job = job_of_launcher(self.config.timeout_s)
        check_ranks(self.job, self.config.trainer)
        self.run = runs.choose(self.runs, self.config.resume, self.job)
        if self.command != "fit" and self.run.checkpoint is None:
            raise UserError(f"`lewm {self.command}` needs a model: --resume CKPT, a run folder, or auto")
        try:
            if self.command == "fit" and self.run.checkpoint is not None:
                checkpoint.check_resumable(self.run.checkpoint)
            super().instantiate_classes()
            self.job.decide(lambda: None)  # all of them have come so far
        except Exception as error:
            self.job.leave(error)
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        _check_trainer(self.command, self.config.trainer, self.datamodule)
        if self.config.probe_every < 0:
            raise UserError(f"--probe_every is {self.config.probe_every}; it must be 0 (off) or more optimiser steps")
        if self.config.checkpoint_every < 1:
            raise UserError(
                f"--checkpoint_every is {self.config.checkpoint_every}; it must be at least 1 optimiser step"
            )
        if self.config.keep < 2:
            raise UserError(
                f"--keep is {self.config.keep}; at least 2 checkpoints are kept, lest the only one be damaged"
            )
        self.config.trainer.precision = self.job.decide(self._precision)
        kwargs |= {"plugins": [AtomicCheckpointIO()], "precision": self.config.trainer.precision}
        if self.job.launcher == "srun":
            kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))  # saving and leaving is ours
        claimed = None
        if self.command != "fit":
            kwargs["logger"] = False
            self.trainer_defaults["callbacks"] = []
        else:
            if self.run.folder is None:
                claimed = runs.claim(self.runs, self.job)
                self.run = runs.Run(claimed, self.run.checkpoint)
            kwargs |= self._for_training()
        runs.hand_down(self.run)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            if claimed is not None and self.job.rank == 0:
                claimed.rmdir()
            raise UserError(f"trainer: {_one_line(error)}") from error
        if isinstance(trainer.strategy, DDPStrategy):  # whichever way it was named or chosen
            trainer.strategy._timeout = timedelta(seconds=self.config.timeout_s)
        return trainer

    def _precision(self) -> str:
        """What is named; else what the run that is resumed had; else the best of this hardware.

        A notice where bfloat16 was named, here or by a run trained elsewhere, and would be emulated; evaluation then
        takes float32.
        """
        best, named = best_precision(self.config.trainer.accelerator), self.config.trainer.precision
        if named is None and self.command == "fit" and self.run.checkpoint is not None:
            named = saved_precision(self.run.checkpoint)
        if named != MIXED or best == MIXED:
            return named or best
        if self.command != "fit":
            return best
        rank_zero_warn(f"{MIXED} is emulated on this hardware, many times slower; --trainer.precision {FULL} is not")
        return named

    def _for_training(self) -> dict[str, Any]:
        """Loggers and callbacks of a run that trains."""
        folder = self.run.folder
        assert folder is not None
        callbacks = [LeaveTogether(self.job.session), FiniteGuard(folder / "stopped"), Throughput(), PeakMemory()]
        callbacks += [SaveEvery(folder / "checkpoints", self.config.checkpoint_every, self.config.keep), StopOnSignal()]
        if self.config.probe_every:
            callbacks.append(ProbeValidation(self.config.probe_every, self.config.probe_targets))
        loggers: dict[str, Any] = {}
        if self.config.trainer.logger is None:
            step = checkpoint.steps_trained(self.run.checkpoint) if self.run.checkpoint else None
            loggers["logger"] = [MetricsFile(folder, step), TensorBoardLogger(folder, name="tb", version="")]
            callbacks.append(LearningRateMonitor("step"))
        callbacks += _best_callback(folder / "checkpoints", self.datamodule)
        self.trainer_defaults["callbacks"] = callbacks
        return loggers


def main(command: str, argv: list[str]) -> int:
    """Run one of the four Lightning commands; returns the exit code."""
    _quiet()
    is_child = runs.VARIABLE in os.environ
    if command == "fit" and (file := _file_to_replay(argv)) is not None:
        return replay(file)
    try:
        return _run(Session(command, argv))
    except (ArgumentError, MisconfigurationException) as error:
        raise UserError(_one_line(error)) from error
    finally:
        if not is_child:
            os.environ.pop(runs.VARIABLE, None)


def _run(session: Session) -> int:
    """Do what the command says; one line where another rank was lost."""
    data, part = session.datamodule, PARTS.get(session.command)
    try:
        if part is None:
            return _fit(session)
        if len(data.dataset(part)) == 0:
            raise UserError(f"the {part} split of {data.path} holds no clip to judge on")
        return _predict(session) if session.command == "predict" else _evaluate(session)
    except RuntimeError as error:
        if isinstance(error, GuardStop) or not tells_of_a_lost_rank(error):
            raise
        lost = f"another rank was lost or has stopped answering ({_one_line(error)[:200]})"
        raise UserError(advice(why_left(session.job.session) or lost)) from error


def _file_to_replay(argv: list[str]) -> str | None:
    if not any(word.partition("=")[0] == "--replay" for word in argv):
        return None
    words = [*argv[0].split("=", 1), *argv[1:]]
    if len(words) != 2 or words[0] != "--replay":
        raise UserError("--replay takes one file and no other flags: everything else is in the file")
    return words[1]


def _fit(session: Session) -> int:
    run, trainer = session.run, session.trainer
    assert run.folder is not None
    make_folder(run.folder / "checkpoints")
    lines: list[str] = []
    if trainer.global_rank == 0:
        sheet = session.datamodule.describe()
        validates = trainer.limit_val_batches > 0  # type: ignore[attr-defined]
        # Once the checkpoint is accepted: a run that cannot go on so stays as it was.
        trainer.callbacks.append(LambdaCallback(on_train_start=lambda *_: _begin(session, sheet)))  # type: ignore[attr-defined]
        lines = [f"run folder: {run.folder}", *_announcement(session.model.model, sheet, validates=validates)]
        print("\n".join(lines), flush=True)
    if trainer.strategy.root_device.type == "cpu" and not session.model.objective["plain"]:
        keep_freed()
    start = str(run.checkpoint) if run.checkpoint else None
    log = open_log(run.folder) if trainer.global_rank == 0 else None
    for line in lines:
        LOG.info(line)
    try:
        with full_disk_named(run.folder):
            trainer.fit(session.model, datamodule=session.datamodule, ckpt_path=start, weights_only=True)
    except SignalStop as stop:
        return stop.exit_code
    except SIGTERMException:  # before the first batch
        return 143
    except SystemExit:  # how Lightning ends after a second Ctrl-C
        return 130
    finally:
        LOG.info(f"ended at step {trainer.global_step}")
        if log is not None:
            close_log(log)
    return 0


def _begin(session: Session, sheet: dict[str, Any]) -> None:
    """Set aside what the run goes behind, and write what it is made from."""
    folder = session.run.folder
    assert folder is not None
    runs.set_aside(session.run)
    runs.clear(folder)
    session.config.resume = None  # the saved config begins a run like this one
    with written_atomically(folder / "config.yaml") as temporary:
        temporary.write_text(session.parser.dump(session.config, skip_none=False), encoding="utf-8")
    write_environment(folder, sheet)


def _evaluate(session: Session) -> int:
    judge = getattr(session.trainer, session.command)
    path = str(session.run.checkpoint)
    judge(session.model, datamodule=session.datamodule, ckpt_path=path, verbose=False, weights_only=True)
    if session.trainer.is_global_zero:
        for name, value in sorted(session.trainer.callback_metrics.items()):
            print(f"{name:32s} {float(value):.6g}")
    return 0


def _predict(session: Session) -> int:
    if session.trainer.world_size > 1:
        raise UserError("`lewm predict` runs on one device: --trainer.devices 1")
    path = session.run.checkpoint
    assert path is not None
    batches: Any = session.trainer.predict(
        session.model, datamodule=session.datamodule, ckpt_path=str(path), weights_only=True
    )
    arrays: dict[str, Any] = {
        name: np.concatenate([b[name].cpu().numpy() for b in batches]) for name in ("index", "embedding")
    }
    out = (session.run.folder or path.parent) / "embeddings.npz"
    with written_atomically(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    print(f"embeddings of {len(arrays['index'])} test clips: {out}")
    return 0


def _best_callback(folder: Path, data: ClipDataModule) -> list[ModelCheckpoint]:
    if len(data.dataset("val")) == 0:
        return []
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor="val/loss",
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=False,  # but after each validation
    )
    return [best]


def _check_trainer(command: str, trainer: Any, data: ClipDataModule) -> None:
    """Refuse what would fail later: another order of clips, validation after more batches than there are."""
    if command != "fit":
        return
    if trainer.overfit_batches:
        raise UserError(
            f"trainer.overfit_batches is {trainer.overfit_batches}: it draws clips in an order of its own, which no "
            "resume could find again; set trainer.limit_train_batches for short epochs, or train on a smaller data set"
        )
    batches, interval = len(data.train) // data.global_batch, trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > batches:
        raise UserError(
            f"trainer.val_check_interval is {interval} but an epoch has {batches} batches; lower it, or set "
            "trainer.check_val_every_n_epoch to null to count across epochs"
        )


def _announcement(model: torch.nn.Module, sheet: dict[str, Any], *, validates: bool) -> list[str]:
    """How large model and data are, and what they lack."""
    lines = [_sizes(model)]
    for part in ("train", "val", "test"):
        counts = sheet[part]
        line = f"{part}: {counts['episodes']} episodes, {counts['clips']} clips"
        lines.append(line + (f"; {counts['too_short']} episodes too short for a clip" if counts["too_short"] else ""))
        if counts["clips"] == 0:
            lines.append(f"notice: the {part} split is empty; nothing will be measured on it")
    if not validates:
        looks = "`lewm validate --trainer.limit_val_batches 1.0`"
        lines.append(f"notice: validation is off; a collapse passes unseen, unless {looks} looks for it")
    return lines


def _sizes(model: torch.nn.Module) -> str:
    """How many parameters there are, and where."""
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    inside = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    return f"model: {sum(parts.values()):,} parameters ({inside})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _quiet() -> None:
    """Silence advice of libraries that does not apply here; our own warnings are shown."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*LightningCLI's args parameter.*",
        ".*does not have many workers.*",
        ".*is smaller than the logging interval.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*is not supported by the model summary.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*suggested max number of worker.*",
        ".*Total length of .* across ranks is zero.*",  # said by our own notice
        ".*callbacks used to create the checkpoint.*",  # evaluation needs none of them
    ):
        warnings.filterwarnings("ignore", message=text)

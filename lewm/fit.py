"""`lewm fit`, `validate`, `test` and `predict`: LightningCLI, our run folder, and resuming."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lewm import __version__, checkpoint
from lewm.callbacks import AtomicCheckpointIO, PeakMemory, SaveAtEnd, Throughput
from lewm.datasets.datamodule import ClipDataModule
from lewm.errors import UserError
from lewm.module import LeWM
from lewm.paths import make_folder, shipped, written_atomically

RUN_VARIABLE = "LEWM_RUN_FOLDER"  # hands the run's folder from the first process to those it starts


class Session(LightningCLI):
    """Parses the command line, opens the data, builds the model for it and the trainer for the run's folder."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--name", type=str, default="lewm", help="runs are kept in trainer.default_root_dir/NAME")
        parser.add_argument("--resume", type=str | None, default=None, help="`auto`, a checkpoint or a run folder")
        parser.add_argument("--checkpoint_every", type=int, default=1000, help="optimiser steps between checkpoints")
        parser.add_argument("--keep", type=int, default=2, help="how many of them are kept")
        parser.link_arguments("data.interface", "model.interface", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        self.run, self.resume_from = _find_run(self.config)
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        _check_devices(self.config.trainer)
        given = self.config.trainer
        if given.logger is None:
            kwargs["logger"] = [_csv_logger(self.run), TensorBoardLogger(self.run, name="tb", version="")]
        callbacks = [Throughput(), PeakMemory(), SaveAtEnd(self.run / "checkpoints")]
        if kwargs.get("logger"):
            callbacks.append(LearningRateMonitor("step"))
        callbacks += _checkpoint_callbacks(self.run, self.config.checkpoint_every, self.config.keep, self.datamodule)
        self.trainer_defaults["callbacks"] = callbacks
        self.trainer_defaults["plugins"] = [AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)


def main(command: str, argv: list[str]) -> int:
    """Run one of the four Lightning commands; returns the exit code."""
    _quiet()
    session = _parse(argv)
    if command == "fit":
        return _fit(session)
    path = str(session.resume_from) if session.resume_from else None
    if path is None:
        raise UserError(f"`lewm {command}` needs a model: --resume CKPT, a run folder, or auto")
    if command == "predict":
        _predict(session, path)
    else:
        getattr(session.trainer, command)(
            session.model, datamodule=session.datamodule, ckpt_path=path, verbose=False, weights_only=True
        )
        _print_metrics({k: float(v) for k, v in session.trainer.callback_metrics.items()})
    return 0


def _parse(argv: list[str]) -> Session:
    try:
        return Session(
            LeWM,
            ClipDataModule,
            run=False,
            args=_with_shipped_configs(argv),
            parser_kwargs={"exit_on_error": False, "prog": "lewm fit"},
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except (ArgumentError, MisconfigurationException) as error:
        raise UserError(_one_line(error)) from error


def _fit(session: Session) -> int:
    train = session.datamodule.train  # whatever is wrong with the data is said before anything is written
    del train
    make_folder(session.run / "checkpoints")
    if session.trainer.global_rank == 0:
        session.parser.save(session.config, session.run / "config.yaml", skip_none=False, overwrite=True)
        _write_environment(session)
        print(f"run folder: {session.run}", flush=True)
    os.environ[RUN_VARIABLE] = str(session.run)
    try:
        session.trainer.fit(
            session.model,
            datamodule=session.datamodule,
            ckpt_path=str(session.resume_from) if session.resume_from else None,
            weights_only=True,
        )
    except SystemExit:  # how Lightning ends after Ctrl-C, once callbacks have saved
        return 130
    finally:
        os.environ.pop(RUN_VARIABLE, None)
    return 0


def _predict(session: Session, path: str) -> None:
    batches: Any = session.trainer.predict(
        session.model, datamodule=session.datamodule, ckpt_path=path, weights_only=True
    )
    arrays: dict[str, Any] = {
        name: np.concatenate([b[name].cpu().numpy() for b in batches or []]) for name in ("index", "embedding")
    }
    out = make_folder(session.run) / "embeddings.npz"
    with written_atomically(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    print(f"embeddings of {len(arrays['index'])} test clips: {out}")


def _find_run(config: Any) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint it starts from; a resumed run goes on in its own folder."""
    runs = Path(config.trainer.default_root_dir or "runs") / config.name
    inherited = os.environ.get(RUN_VARIABLE)
    if config.resume is None:
        return Path(inherited) if inherited else runs / time.strftime("%Y%m%d-%H%M%S"), None
    if config.resume != "auto":
        found = checkpoint.resolve(config.resume)
        return checkpoint.run_folder(found) or runs / time.strftime("%Y%m%d-%H%M%S"), found
    found, skipped = checkpoint.newest_valid(runs) if runs.exists() else (None, [])
    for path in skipped:
        print(f"lewm: skipped a damaged checkpoint: {path}", file=sys.stderr)
    if found is None:
        print(f"lewm: nothing to resume in {runs}; starting anew", file=sys.stderr)
        return runs / time.strftime("%Y%m%d-%H%M%S"), None
    return found.parent.parent, found


def _checkpoint_callbacks(run: Path, every: int, keep: int, data: ClipDataModule) -> list[ModelCheckpoint]:
    folder = run / "checkpoints"
    newest = ModelCheckpoint(
        folder,
        filename="step={step}",
        auto_insert_metric_name=False,
        every_n_train_steps=every,
        monitor="step",
        mode="max",
        save_top_k=keep,
        enable_version_counter=False,
    )
    if len(data.dataset("val")) == 0:
        return [newest]
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor="val/loss",
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=False,  # but after each validation
    )
    return [newest, best]


def _csv_logger(run: Path) -> CSVLogger:
    """Lightning's CSV logger, which would delete the rows of a run that is resumed: they are read first and kept."""
    path = run / "metrics.csv"
    kept = path.read_text(encoding="utf-8") if path.exists() else None
    logger = CSVLogger(run, name="", version="")
    if kept:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer = logger.experiment
        import csv

        rows = list(csv.DictReader(kept.splitlines()))
        writer.metrics.extend({k: v for k, v in row.items() if v != ""} for row in rows)  # type: ignore[misc]
        writer.save()
    return logger


def _check_devices(trainer: Any) -> None:
    """Refuse more processes than there are cores; accelerators are counted by Lightning."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    wanted, cores = trainer.devices, os.cpu_count() or 1
    if on_cpu and str(wanted).isdigit() and int(wanted) > cores:
        raise UserError(f"trainer.devices is {wanted} but this machine has {cores} CPU cores; ask for at most {cores}")


def _with_shipped_configs(argv: list[str]) -> list[str]:
    """Put `base` first and replace shipped names, as in `--config demo`, by their files."""
    out, expect = ["--config", str(shipped("base.yaml"))], False
    for word in argv:
        if word == "--config":
            expect = True
        elif expect or word.startswith("--config="):
            out += ["--config", _config_file(word.removeprefix("--config="))]
            expect = False
        else:
            out.append(word)
    return out


def _config_file(name: str) -> str:
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise UserError(f"no such config file: {name}")
        return name
    return str(shipped(f"{name}.yaml"))


def _write_environment(session: Session) -> None:
    """What made this run: versions, machine, command, data."""
    packages = ("torch", "lightning", "timm", "numpy", "h5py", "webdataset")
    from importlib.metadata import version

    content = {
        "lewm": __version__,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "accelerator": _accelerator()},
        "git": _git_revision(),
        "command": ["lewm", "fit", *sys.argv[2:]],
        "data": session.datamodule.describe(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with written_atomically(session.run / "env.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(_sizes(session.model.model))
    for part in ("train", "val", "test"):
        counts = content["data"][part]
        line = f"{part}: {counts['episodes']} episodes, {counts['clips']} clips"
        print(line + (f"; {counts['too_short']} episodes too short for a clip" if counts["too_short"] else ""))
        if counts["clips"] == 0:
            print(f"notice: the {part} split is empty; nothing will be measured on it")


def _sizes(model: torch.nn.Module) -> str:
    """How many parameters there are, and where."""
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    inside = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    return f"model: {sum(parts.values()):,} parameters ({inside})"


def _accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _git_revision() -> str | None:
    if shutil.which("git") is None:
        return None
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or None


def _print_metrics(metrics: dict[str, float]) -> None:
    for name in sorted(metrics):
        print(f"{name:32s} {metrics[name]:.6g}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _quiet() -> None:
    """Silence advice of libraries that does not apply here; our own warnings are shown."""
    import logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*LightningCLI's args parameter.*",
        ".*does not have many workers.*",
        ".*is smaller than the logging interval.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*Experiment logs directory.*",  # see _csv_logger
        ".*is not supported by the model summary.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*suggested max number of worker.*",
    ):
        warnings.filterwarnings("ignore", message=text)

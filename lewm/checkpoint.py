"""What a checkpoint holds, and how one is read: everything needed to use a model, nothing that runs code."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lewm import __version__
from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.world_model import WorldModel
from lewm.paths import written_atomically
from lewm.weights import WEIGHTS, are_plain, is_model_folder, read_model, read_torch

FORMAT = 1


def describe(model: WorldModel) -> dict[str, Any]:
    """Plain description of a model, kept under `lewm` in every checkpoint."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": model.config,
        "interface": model.interface.to_dict(),
    }


def write(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that no partial file ever stands at `path`; on a full disk UserError says what it needs."""
    with written_atomically(path, needed=_num_bytes(content)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch hides the system's error of a failed write behind one of its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise  # not of the disk: of a device, say
            raise OSError(str(error).splitlines()[0]) from error


def _num_bytes(content: Any) -> int:
    """Bytes of all tensors inside, which is nearly the size of the file."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    inside = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return sum(map(_num_bytes, inside))


def save(model: WorldModel, path: str | Path) -> None:
    """Write a model alone, without the state of its training."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    write({"lewm": describe(model), "state_dict": state}, path)


def read(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint file; only tensors and plain values are ever loaded, and only if every checksum holds."""
    path = Path(path)
    try:
        content = read_model(path) if path.name == WEIGHTS else read_torch(path)
    except UserError:
        raise
    except Exception as error:  # whatever hostile bytes make of torch's reader
        raise UserError(f"not a readable checkpoint: {path}; it may be damaged or of another tool") from error
    if not isinstance(content, dict) or "lewm" not in content or "state_dict" not in content:
        raise UserError(f"no lewm checkpoint: {path}; its tensors come without the description of a model")
    about = content["lewm"]
    if not isinstance(about, dict) or not isinstance(about.get("format"), int) or "interface" not in about:
        raise UserError(f"not a readable checkpoint: {path}; its description of the model is damaged")
    if not are_plain(content["state_dict"]):
        raise UserError(f"not a readable checkpoint: {path}; its weights are not the tensors that it holds")
    if about["format"] > FORMAT:
        raise UserError(f"{path} was written by lewm {about.get('version')}; install that version or later")
    return content


def load(path: str | Path) -> WorldModel:
    """The frozen world model of a checkpoint file, a run folder, a folder of runs (then the newest valid one), or an
    exported folder.
    """
    path = resolve(path)
    content, prefix = read(path), "model."
    try:
        model = WorldModel(Interface.from_dict(content["lewm"]["interface"]), **content["lewm"]["config"])
        state = {name[len(prefix) :]: x for name, x in content["state_dict"].items() if name.startswith(prefix)}
        model.load_state_dict(state)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"the weights in {path} do not fit its description of the model: {why}") from error
    return model.eval().requires_grad_(False)


def untrained(model: WorldModel, seed: int) -> WorldModel:
    """The same architecture with fresh random weights, frozen; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = WorldModel(model.interface, **model.config)
    return fresh.eval().requires_grad_(False)


def resolve(path: str | Path) -> Path:
    """The checkpoint meant by a file, a run folder or a folder of runs: the newest valid, saying what was skipped.

    Of an exported folder its weights.
    """
    path = Path(path)
    if path.is_file():
        return path
    if is_model_folder(path):
        return path / WEIGHTS
    if not path.exists():
        raise UserError(f"no such checkpoint or run: {path}")
    found, skipped = newest_valid(path)
    if found is None:
        raise UserError(_why_none(path, skipped))
    for each in skipped:
        _say_skipped(each, each.stat().st_mtime_ns)
    return found


@cache
def _say_skipped(path: Path, written_ns: int) -> None:
    """Print it, once however often the same file is met."""
    print(f"lewm: skipped a checkpoint that cannot be read: {path}", file=sys.stderr)


def _why_none(folder: Path, skipped: list[Path]) -> str:
    if not skipped:
        return f"no checkpoint in {folder}; `lewm fit` and `lewm import` write them to RUN/checkpoints"
    why = f"no checkpoint in {folder} can be read: {', '.join(path.name for path in skipped)} are damaged"
    others = [path for path in sorted(skipped[0].parent.glob("*.ckpt")) if path not in skipped and is_valid(path)]
    return f"{why}; by its name {others[0]} can" if others else f"{why}; restore one"


def every(paths: Sequence[str | Path]) -> list[Path]:
    """The checkpoint files meant by several paths, each once: a folder of checkpoint files means all of them.

    They come by training step, `best.ckpt` and others without a number last; of two that hold the same model the first
    is kept.
    """
    files = []
    for path in map(Path, paths):
        inside = sorted(path.glob("*.ckpt"), key=_by_step) if path.is_dir() else []
        files += inside or [resolve(path)]
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(_model_hash(read(file)) if len(files) > 1 else "", file)
    return list(found.values())


def interface_of(path: Path) -> Interface:
    """What the model of a checkpoint file must be fed with."""
    return Interface.from_dict(read(path)["lewm"]["interface"])


def _model_hash(content: dict[str, Any]) -> str:
    found = hashlib.sha256(repr((content["lewm"]["config"], content["lewm"]["interface"])).encode())
    for name, tensor in sorted(content["state_dict"].items()):
        found.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _by_step(path: Path) -> tuple[bool, int, str]:
    step = step_of(path)
    return step is None, step or 0, path.name


def newest_first(folder: str | Path) -> list[Path]:
    """Checkpoints of a run, or of the newest run in a folder of runs that has any, newest first."""
    return next((found for run in _runs(Path(folder)) if (found := _of_run(run))), [])


def _runs(folder: Path) -> list[Path]:
    return [folder, *sorted((p for p in folder.iterdir() if p.is_dir()), reverse=True)]


def _of_run(run: Path) -> list[Path]:
    steps = {path: step for path in run.glob("checkpoints/step=*.ckpt") if (step := step_of(path)) is not None}
    return sorted(steps, key=lambda path: steps[path], reverse=True)


def step_of(path: Path) -> int | None:
    """The optimiser step in a checkpoint's name, `step=800.ckpt`; None for one named otherwise."""
    number = path.stem.removeprefix("step=")
    return int(number) if number.isdigit() else None


def steps_trained(path: Path) -> int:
    """Optimiser steps behind a checkpoint: from its name, or for `best.ckpt` and the like from what it holds."""
    step = step_of(path)
    return step if step is not None else int(read(path).get("global_step", 0))


def check_resumable(path: Path) -> None:
    """UserError for a checkpoint from which training cannot go on: a model alone, or the step of a stopped run."""
    if not {"optimizer_states", "loops"} <= read(path).keys():
        raise UserError(
            f"{path} holds a model without the state of its training; --resume takes a run or RUN/checkpoints/*"
        )


def newest_valid(folder: str | Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint of the newest run that has one that can be read, and those skipped on the way to it."""
    skipped = []
    for path in (path for run in _runs(Path(folder)) for path in _of_run(run)):
        if is_valid(path):
            return path, skipped
        skipped.append(path)
    return None, skipped


def is_valid(path: Path) -> bool:
    """Whether a checkpoint file can be read."""
    try:
        read(path)
    except UserError:
        return False
    return True


def run_folder(path: str | Path) -> Path | None:
    """The run a checkpoint file belongs to, or None for one kept elsewhere."""
    path = resolve(path)
    return path.parent.parent if path.parent.name == "checkpoints" else None

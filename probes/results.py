"""What every evaluator writes: result.json, the same as result.csv, and its plots; each whole or not there."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm import checkpoint as checkpoints
from lewm.errors import UserError
from lewm.paths import make_folder, written_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "torchmetrics", "timm", "lightning", "h5py", "matplotlib")


def plain(value: Any) -> Any:
    """Only what JSON knows: numbers of Python's own, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of every number and word inside, names joined by dots: rows of result.csv."""
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def out_folder(out: str | Path | None, paths: list[Path], kind: str) -> Path:
    """The folder asked for, or report/`kind` in the checkpoints' run; made here, so that failing costs no work."""
    if out is None:
        runs = {checkpoints.run_folder(path) for path in paths}
        if len(runs) > 1:
            raise UserError(f"the checkpoints are of {len(runs)} runs; say where the results go with --out DIR")
        run = runs.pop()
        if run is None:
            raise UserError(f"{paths[0]} lies in no run folder; say where the results go with --out DIR")
        out = run / "report" / kind
    return make_folder(out)


def cache_folder(paths: list[Path], out: Path) -> Path:
    """Where computed features are kept: in the checkpoints' run, or with the results."""
    runs = {checkpoints.run_folder(path) for path in paths}
    run = runs.pop()
    return (out if runs or run is None else run) / "cache"


def write_result(result: dict[str, Any], figures: dict[str, Figure], out: Path) -> dict[str, Any]:
    """Write the plots, result.csv and last result.json; returns the result as JSON holds it."""
    result = plain(result | {"figures": sorted(figures)})  # of earlier results others may lie beside them
    for name, figure in figures.items():
        with written_atomically(out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    table = io.StringIO()
    csv.writer(table).writerows([("name", "value"), *flat(result)])
    write_text(out / "result.csv", table.getvalue())
    write_text(out / "result.json", json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return result


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def command_line() -> str:
    """The shell command that started this process."""
    program = Path(sys.argv[0])
    return shlex.join(["lewm" if program.parts[-2:] == ("lewm", "__main__.py") else program.name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    from lewm import __version__

    found = {"lewm": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify(checkpoint: Path) -> dict[str, Any]:
    """Which checkpoint: its path, hash, and optimiser step where it says so."""
    step = checkpoints.read(checkpoint).get("global_step")
    return {"path": str(checkpoint), "sha256": sha256(checkpoint), "step": step}

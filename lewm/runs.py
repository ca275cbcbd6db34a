"""A run's folder: which one, claimed by one run alone, and what stands in it beside checkpoints."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lewm import checkpoint
from lewm.errors import UserError
from lewm.job import Job
from lewm.paths import make_folder

VARIABLE = "LEWM_RUN"  # hands the choice of the first process to those that it starts itself
ALONE = Job()


@dataclass(frozen=True)
class Run:
    """Where a run lives (None before it is claimed) and the checkpoint it starts from."""

    folder: Path | None
    checkpoint: Path | None


def choose(runs: Path, resume: str | None, job: Job = ALONE) -> Run:
    """The run meant by `--resume`: none, `auto` for the newest that can be read, a checkpoint or a folder.

    Of a job of several ranks rank 0 looks, when all of them are there, and the others are told.
    """
    if VARIABLE in os.environ:
        return _from_plain(json.loads(os.environ[VARIABLE]))
    return _from_plain(job.decide(lambda: _plain(_choose(runs, resume))))


def _choose(runs: Path, resume: str | None) -> Run:
    if resume is None:
        return Run(None, None)
    if resume != "auto":
        found = checkpoint.resolve(resume)
        return Run(checkpoint.run_folder(found), found)
    newest, skipped = checkpoint.newest_valid(runs) if runs.is_dir() else (None, [])
    for path in skipped:
        print(f"lewm: skipped a checkpoint that cannot be read: {path}", file=sys.stderr)
    if newest is None:
        print(f"lewm: nothing to resume in {runs}; starting anew", file=sys.stderr)
        return Run(None, None)
    chosen = newest.parent.parent
    if passed := _without_checkpoints(runs, chosen):
        more = f" and {len(passed) - 1} more" if passed[1:] else ""
        print(
            f"lewm: going on with {chosen}; the newer run {passed[0].name}{more} ended before its first checkpoint, or "
            "has none yet, and is left as it is",
            file=sys.stderr,
        )
    return Run(chosen, newest)


def _without_checkpoints(runs: Path, chosen: Path) -> list[Path]:
    """Runs begun after the chosen one from which none can be gone on with, newest first."""
    later = sorted((p for p in runs.iterdir() if p.name > chosen.name and (p / "checkpoints").is_dir()), reverse=True)
    return [run for run in later if not list((run / "checkpoints").glob("step=*.ckpt"))]


def claim(runs: Path, job: Job = ALONE) -> Path:
    """Make a new run's folder, named by date and time: one for all ranks of a job, another for each run of a second."""
    return Path(job.decide(lambda: str(_claim(runs))))


def _claim(runs: Path) -> Path:
    make_folder(runs)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = runs / (f"{stamp}-{number}" if number else stamp)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another place") from error
        return folder
    raise UserError(f"a thousand runs were begun in {runs} in one second; wait a moment")


def hand_down(run: Run) -> None:
    """Let processes that this one starts make the same choice."""
    os.environ[VARIABLE] = json.dumps(_plain(run))


def _plain(run: Run) -> list[str | None]:
    return [str(path) if path else None for path in (run.folder, run.checkpoint)]


def _from_plain(paths: list[str | None]) -> Run:
    folder, found = (Path(path) if path else None for path in paths)
    return Run(folder, found)


def set_aside(run: Run) -> None:
    """Rename checkpoints later than the one a run goes on from, which `auto` would otherwise take for its newest."""
    assert run.folder is not None
    if run.checkpoint is None:
        return
    begun = checkpoint.steps_trained(run.checkpoint)
    for path in checkpoint.newest_first(run.folder):
        if (checkpoint.step_of(path) or 0) > begun:
            path.rename(path.with_name(f"superseded-{path.name}"))
            print(f"lewm: set aside {path.name}: the run goes on from {run.checkpoint.name}", file=sys.stderr)


def clear(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing into a run's folder."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()

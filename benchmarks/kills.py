"""Does a run that is killed with -9 and resumed end bit by bit as one that is not? python benchmarks/kills.py.

A tiny model is trained once without a kill, by a process of its own. Then the same command is run again and again, each
time killed with all its workers at a random moment of a chosen kind and resumed with another number of workers until it
ends. Compared are weights, buffers, optimiser, schedule, position, the best checkpoint and every logged loss.

Most trials are forked from this process, which has imported everything and computed nothing; some are fresh processes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.utils.tensorboard  # what a run imports late is imported once
import watched

from lewm import checkpoint
from lewm.cli import main as lewm
from lewm.datasets.collect import collect
from lewm.envs import make_policy, make_world

STEPS, QUICK = 28, 14  # optimiser steps; an epoch has 8
EVERY, VALIDATE = 4, 6  # optimiser steps between checkpoints, between validations
SLOW = 0.08  # seconds a watched moment is drawn out, so that a kill can hit it
PATIENCE = 300  # seconds after which a run counts as hung
FLAGS = [
    "--model.encoder_kwargs={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    *(f"--model.{name}=16" for name in ("projector_hidden", "action_hidden", "predictor_mlp", "sigreg_directions")),
    *("--model.embed_dim=8", "--model.predictor_depth=1", "--model.predictor_heads=2", "--model.predictor_head_dim=4"),
    *("--model.dropout=0.1", "--model.augment_colour=0.5", "--model.lr=5e-2", "--model.history=null"),
    *(
        "--data.global_batch=20",
        "--data.num_frames=4",
        "--data.frameskip=14",
        f"--checkpoint_every={EVERY}",
        "--keep=2",
    ),
    *("--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1"),
    *(f"--trainer.val_check_interval={VALIDATE}", "--trainer.check_val_every_n_epoch=null"),
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"),
]
MOMENTS = {  # kind: how the note begins that stands last when the kill lands
    "mid-epoch": "step ",
    "during a save": "save ",
    "in validation": "validation ",
    "in the first step": "step 0 ",
    "after a save, before an older one's removal": "remove step",
    "at the epoch's end": "epoch ",
    "twice in a row": "step ",
    "at random": "",
    "at random, a fresh process": "",
}
TIMES = ("train/clips_per_s", "train/data_wait")  # columns that differ between any two runs


class Child:
    """A process, leader of a group of its own, that runs `lewm` and appends to `said.txt` in its folder."""

    def __init__(self, folder: Path, argv: list[str], *, watch: dict[str, Any] | None = None, fresh: bool = False):
        folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(folder, argv, watch, fresh)

    def _run(self, folder: Path, argv: list[str], watch: dict[str, Any] | None, fresh: bool) -> None:
        try:
            os.setsid()
            said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # what killed workers leave goes with the folder
            if fresh:
                how = ["-m", "lewm"] if watch is None else [watched.__file__, json.dumps(watch)]
                os.execv(sys.executable, [sys.executable, *how, *argv])
            if watch is not None:
                watched.watch(**watch)
            code = lewm(argv)
            sys.stdout.flush()
            os._exit(code)
        finally:
            os._exit(99)

    def running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def wait(self) -> int:
        """Its exit code."""
        end = time.monotonic() + PATIENCE
        while self.running():
            if time.monotonic() > end:
                self.kill()
                raise SystemExit(f"process {self.pid} hung")
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)  # workers that outlived it, if any
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass
class Lab:
    """Where the data lie, what the uninterrupted run was, and how long a watched one takes."""

    root: Path
    steps: int
    seconds: float = 0.0

    @property
    def reference(self) -> Path:
        return self.root / "whole"

    @property
    def notes(self) -> list[str]:
        return read_notes(self.root / "second")

    def argv(self, folder: Path, workers: int, *flags: str) -> list[str]:
        own = [f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={self.steps}"]
        return ["fit", *FLAGS, f"--data.path={self.root / 'data'}", *own, f"--data.num_workers={workers}", *flags]


@dataclass
class Trial:
    """One run, killed and resumed, and how it ended."""

    kind: str
    landed: list[str] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # rows of the log
    left: list[str] = field(default_factory=list)  # files in `checkpoints/` that an uninterrupted run does not leave


@contextmanager
def laboratory(steps: int = STEPS) -> Iterator[Lab]:
    """Data, and the uninterrupted run twice: by a fresh process if steps are many, and by a watched, drawn-out one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(Path(scratch), steps)
        world, policy = partial(make_world, "two_room", image_size=16), partial(make_policy, "two_room", "expert")
        collect(world, policy, lab.root / "data", episodes=12, seed=1, codec="raw")
        ended(Child(lab.reference, lab.argv(lab.reference, 0), fresh=steps > QUICK), lab.reference)
        begun, second = time.monotonic(), lab.root / "second"
        ended(Child(second, lab.argv(second, 1), watch={"notes": f"{second}/notes", "slow": SLOW}), second)
        lab.seconds = time.monotonic() - begun
        if (found := compare(lab, second)) != ([], []):
            raise SystemExit(f"a watched run differs from another one before any kill: {found}")
        yield lab


def ended(child: Child, folder: Path) -> None:
    if code := child.wait():
        raise SystemExit(f"exit code {code}\n{(folder / 'said.txt').read_text()[-3000:]}")


def read_notes(folder: Path, name: str = "notes", rank: int = 0) -> list[str]:
    path = folder / f"{name}.{rank}"
    return path.read_text().splitlines() if path.exists() else []


def run_of(folder: Path) -> Path:
    """The run that ended: folders of runs killed before their first checkpoint may stand beside it."""
    found = checkpoint.run_folder(folder / "lewm")
    assert found is not None
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two contents of checkpoints are equal to the bit."""
    if isinstance(a, torch.Tensor):
        is_alike = isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return is_alike and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> dict[tuple[int, str], list[str]]:
    """What was logged, by step and column, times left out."""
    found: dict[tuple[int, str], list[str]] = {}
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if value and column not in ("step", *TIMES):
                    found.setdefault((int(row["step"]), column), []).append(value)
    return found


def compare(lab: Lab, folder: Path) -> tuple[list[str], list[str]]:
    """What differs between a run and the uninterrupted one, and what it lacks in its log."""
    a, b = run_of(folder), run_of(lab.reference)
    found = []
    for name, parts in ((f"step={lab.steps}.ckpt", PARTS), ("best.ckpt", ("state_dict", "global_step"))):
        x, y = checkpoint.read(a / "checkpoints" / name), checkpoint.read(b / "checkpoints" / name)
        found += [f"{name} {part}" for part in parts if not same(x[part], y[part])]
    mine, theirs = rows(a), rows(b)
    epochs = {key for key in theirs if key[1] == "epoch"}  # stands in the rows of losses and of validation
    found += [f"{column} at step {step}" for step, column in sorted(mine.keys() - theirs.keys())]
    for key in sorted((mine.keys() & theirs.keys()) - epochs):
        if mine[key] != theirs[key]:
            found.append(f"{key[1]} at step {key[0]}: {mine[key]}, not {theirs[key]}")
    missing = sorted(theirs.keys() - mine.keys() - epochs)
    return found, [f"{column} at step {step}" for step, column in missing]


PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "ClipDataModule", "global_step", "epoch", "lewm")


def killed(lab: Lab, folder: Path, kind: str, workers: int, rng: random.Random) -> str | None:
    """Start a run and kill it; the last note it left, or None where the moment was missed."""
    notes, begins = folder / "notes.0", MOMENTS[kind]
    notes.unlink(missing_ok=True)
    is_fresh = kind.endswith("fresh process")
    watch = None if is_fresh else {"notes": str(folder / "notes"), "slow": SLOW}
    child = Child(folder, lab.argv(folder, workers, "--resume=auto"), watch=watch, fresh=is_fresh)
    if kind.startswith("at random"):
        if is_fresh:
            until(child, lambda: bool(list(folder.glob("lewm/*/env.json"))))
        time.sleep(rng.uniform(0, lab.seconds if not is_fresh else 0.3 * lab.seconds))
    else:
        moments = [note for note in lab.notes if note.startswith(begins)]
        wanted = rng.randrange(1 if len(moments) > 1 else 0, len(moments)) + 1
        until(child, lambda: sum(note.startswith(begins) for note in read_notes(folder)) >= wanted)
        time.sleep(rng.uniform(0, SLOW))
    if not child.running():
        child.wait()
        return None
    child.kill()
    last = (read_notes(folder) or ["starting"])[-1]
    temporary = list(folder.glob("lewm/*/checkpoints/.*.tmp"))
    is_hit = last.startswith(begins) and (kind != "during a save" or bool(temporary))
    return last if is_hit else None


def until(child: Child, holds: Callable[[], bool]) -> None:
    while child.running() and not holds():
        time.sleep(0.01)


def trial(lab: Lab, kind: str, number: int, rng: random.Random, fault: str | None = None) -> Trial:
    """Kill a run as `kind` says and resume it, with other workers, until it ends."""
    folder, done = lab.root / f"trial{number}", Trial(kind)
    last, attempts = None, 0
    while last is None:  # a moment that was missed is tried again, in a new run
        if (attempts := attempts + 1) > 10:
            raise SystemExit(f"{kind}: missed ten times; is the machine too busy?")
        shutil.rmtree(folder, ignore_errors=True)
        done.workers = rng.sample((0, 1, 2), 3)
        last = killed(lab, folder, kind, done.workers[0], rng)
        if last is not None and kind == "twice in a row":
            again = killed_again(lab, folder, done.workers[2], rng)
            done.landed, last = [last], again
    done.landed.append(last)
    watch = {"notes": str(folder / "notes"), "fault": fault} if fault else None
    is_fresh = kind.endswith("fresh process")
    argv = lab.argv(folder, done.workers[1], "--resume=auto")
    ended(Child(folder, argv, watch=watch, fresh=is_fresh), folder)
    done.differs, done.missing = compare(lab, folder)
    wanted = {path.name for path in (run_of(lab.reference) / "checkpoints").iterdir()}
    done.left = [p.name for p in folder.glob("lewm/*/checkpoints/*") if p.name not in wanted]
    shutil.rmtree(folder)
    return done


def killed_again(lab: Lab, folder: Path, workers: int, rng: random.Random) -> str | None:
    """Resume, and kill before a new checkpoint is written; the last note, or None where one was."""
    (folder / "notes.0").unlink()
    argv = lab.argv(folder, workers, "--resume=auto")
    child = Child(folder, argv, watch={"notes": str(folder / "notes"), "slow": SLOW})
    wanted = rng.randrange(EVERY)  # 0: while it starts
    until(child, lambda: sum(note.startswith("step ") for note in read_notes(folder)) >= wanted)
    time.sleep(rng.uniform(0, SLOW))
    if not child.running():
        child.wait()
        return None
    child.kill()
    notes = read_notes(folder)
    return None if any(note.startswith("save step") for note in notes) else (notes or ["starting"])[-1]


def line(number: int, done: Trial) -> str:
    words = [f"{number:3d} {done.kind}: {', then '.join(' '.join(note.split()[:2]) for note in done.landed)}"]
    words += [f"workers {done.workers[0]} then {done.workers[1]}", "equal" if not done.differs else "DIFFERS"]
    return "; ".join(
        words + [f"{part} {found}" for part in ("differs", "missing", "left") if (found := vars(done)[part])]
    )


def table(trials: list[Trial]) -> str:
    head = ["killed", "trials", "bitwise equal", "log whole", "no files left over", "what was under way"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for kind in dict.fromkeys(t.kind for t in trials):
        these = [t for t in trials if t.kind == kind]
        landed = Counter(note.split()[0] for t in these for note in t.landed)
        where = ", ".join(f"{word} {count}" for word, count in sorted(landed.items()))
        counts = [len(these), *(sum(not getattr(t, part) for t in these) for part in ("differs", "missing", "left"))]
        lines.append(f"| {' | '.join(map(str, [kind, *counts, where]))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="parts of their names, by commas")
    parser.add_argument("--quick", action="store_true", help="a shorter run and one planted fault")
    chosen = parser.parse_args()
    kinds = [kind for kind in MOMENTS if any(word in kind for word in chosen.kinds.split(","))]
    faults = list(watched.FAULTS)[: 1 if chosen.quick else None]
    rng, trials = random.Random(chosen.seed), []
    with laboratory(QUICK if chosen.quick else STEPS) as lab:
        print(f"uninterrupted and watched: {lab.seconds:.1f} s", flush=True)
        for number in range(chosen.trials):
            done = trial(lab, kinds[number % len(kinds)], number, rng)
            trials.append(done)
            print(line(number, done), flush=True)
        planted = {fault: trial(lab, "mid-epoch", -1, rng, fault=fault) for fault in faults}
    print(table(trials))
    for fault, done in planted.items():
        print(f"planted fault {fault}: {'found' if done.differs else 'NOT FOUND'} ({done.differs[:3]})")
    return int(any(t.differs or t.missing for t in trials) or not all(t.differs for t in planted.values()))


if __name__ == "__main__":
    sys.exit(main())

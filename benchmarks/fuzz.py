"""What do readers make of damaged files? A row a kind of file, for RESULTS.md: python benchmarks/fuzz.py --n 2500.

Each input is a whole small file or folder with one thing done to it, read to its end in a child process, so that a
crash or a hang is counted too. "Wrong, unseen" is other data than were written, without an error: none may be where a
checksum covers the byte. Where none does (HDF5, raw and JPEG frames at `verify: sizes`, remade checksums) it is
counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from fuzz_faults import forged, in_file, in_frames, in_structure, older_manifest
from fuzz_files import (
    Facts,
    read_clips,
    read_skipping,
    read_source,
    write_clip_folder,
    write_clips,
    write_hdf5,
    write_shards,
)

from lewm.datasets.manifest import MANIFEST
from lewm.errors import UserError

HANG_S = 60.0
ROOM = 64 * 2**20  # bytes that a reader may take beside twice what it decodes
ADDRESSES = 2 * 2**30  # bytes of address space beside what is in use: more is a planted length believed


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is written, damaged and read, and what no checksum covers."""

    write: Callable[[Path], None]
    damage: Callable[[np.random.Generator, Path], str]
    read: Callable[[Path], Facts]
    file: str = ""  # to read; empty for the folder
    uncovered: str = ""  # names of facts that may be wrong unseen start so


def _shards(codec: str) -> Callable[[Path], None]:
    return partial(write_shards, codec=codec)


def _clips(format: str, damaged: str, uncovered: str = "") -> Kind:
    return Kind(partial(write_clip_folder, format=format), partial(in_file, damaged), read_clips, uncovered=uncovered)


EVERYTHING = "."
FRAMES = "frames"
KINDS = {
    "manifest": Kind(_shards("zstd"), partial(in_file, MANIFEST), read_source),
    "manifest without checksum": Kind(_shards("zstd"), older_manifest, read_source, uncovered=EVERYTHING),
    "index": Kind(_shards("zstd"), partial(in_file, "*.npz"), read_source),
    "tar": Kind(_shards("zstd"), partial(in_file, "*.tar"), read_source),
    "tar, checksums remade": Kind(_shards("zstd"), forged, read_source, uncovered=EVERYTHING),
    "zstd frames": Kind(_shards("zstd"), in_frames, read_source),
    "zlib frames": Kind(_shards("zlib"), in_frames, read_source),
    "png frames": Kind(_shards("png"), in_frames, read_source),
    "png frames, skipping": Kind(_shards("png"), in_frames, read_skipping),
    "zstd frames, skipping": Kind(_shards("zstd"), in_frames, read_skipping),
    "jpeg frames": Kind(_shards("jpeg"), in_frames, read_source, uncovered=FRAMES),
    "jpeg frames, verify full": Kind(_shards("jpeg"), in_frames, partial(read_source, verify="full")),
    "raw frames": Kind(_shards("raw"), in_frames, read_source, uncovered=FRAMES),
    "raw frames, verify full": Kind(_shards("raw"), in_frames, partial(read_source, verify="full")),
    "HDF5": Kind(partial(write_hdf5, compression=None), in_structure, read_source, "flat.h5", EVERYTHING),
    "HDF5, gzip": Kind(partial(write_hdf5, compression="gzip"), in_structure, read_source, "flat.h5", EVERYTHING),
    "file of clips": Kind(write_clips, in_structure, read_clips, "clips.h5", EVERYTHING),
    "images of clips, PNG": _clips("png", "*.png"),
    "images of clips, JPEG": _clips("jpg", "*.jpg", uncovered=EVERYTHING),
    "videos of clips, MP4": _clips("mp4", "*.mp4", uncovered=EVERYTHING),
    "videos of clips, AVI": _clips("avi", "*.avi", uncovered=EVERYTHING),
    "tables of clips": _clips("png", "*s*n*", uncovered=EVERYTHING),
}
ISOLATED = tuple(n for n in KINDS if n.startswith(("HDF5", "file", "videos")))  # read by libraries that may crash
OUTCOMES = ("right", "error", "skipped", "wrong, uncovered", "WRONG", "FAULT", "CRASH", "HANG")


@dataclass
class Outcome:
    """What became of one damaged input."""

    outcome: str
    detail: str = ""
    memory: int = 0  # bytes at the peak beside what was in use before


class Bench:
    """Sound files of each kind, made once, and what they hold."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._made: dict[str, Facts] = {}

    def sound(self, name: str) -> tuple[Path, Facts]:
        """The folder of a sound file, and its facts."""
        kind, folder = KINDS[name], self.place / "sound" / name
        if name not in self._made:
            if not folder.exists():
                folder.mkdir(parents=True)
                kind.write(folder)
            self._made[name] = kind.read(folder / kind.file)
        return folder, self._made[name]

    def try_one(self, name: str, seed: int) -> Outcome:
        """Damage a copy and read it."""
        kind, (folder, facts) = KINDS[name], self.sound(name)
        work = self.place / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work)
        fault = kind.damage(np.random.default_rng([seed, *name.encode()]), work)
        return outcome_of(kind, facts, work, fault)


def outcome_of(kind: Kind, facts: Facts, work: Path, fault: str) -> Outcome:
    """Read what was damaged, and say what became of it."""
    before = start_of_peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = kind.read(work / kind.file)
    except UserError as error:
        told = str(error)
        plain = "\n" not in told and str(work) in told
        result = Outcome("error" if plain else "FAULT", f"{fault}: {told}")
    except Exception as error:
        result = Outcome("FAULT", f"{fault}: {type(error).__name__}: {error}")
    else:
        result = Outcome(*judge(kind, facts, found, fault))
    result.memory = max(0, peak() - before)
    return result


def judge(kind: Kind, facts: Facts, found: Facts, fault: str) -> tuple[str, str]:
    """Whether what was read is what was written."""
    if "skipped" in found:
        good = cast("dict[int, Any]", facts["clips"])
        wrong = [i for i, clip in found["clips"].items() if clip != good[i]]
        return ("WRONG", f"{fault}: clips {wrong}") if wrong else ("skipped" if found["skipped"] else "right", fault)
    differs = sorted(n for n in facts.keys() | found.keys() if facts.get(n) != found.get(n))
    if not differs:
        return "right", fault
    covered = [
        n for n in differs if not (kind.uncovered == EVERYTHING or (kind.uncovered and n.startswith(kind.uncovered)))
    ]
    return ("WRONG" if covered else "wrong, uncovered"), f"{fault}: {differs[0]}"


def start_of_peak() -> int:
    """Forget the peak of memory so far; what is in use now, in bytes. Where the system cannot, 0 and no peak."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before, but kept, would serve again unseen
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return 2**62
    return _status("VmRSS")


def peak() -> int:
    """The peak of memory since then, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", text)[1])  # type: ignore[index]


# Children


def limit_addresses() -> None:
    """Let this process have `ADDRESSES` more than it has."""
    limit = _status("VmSize") + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def child(place: Path) -> None:
    """Do the tasks that come as lines, and answer each with one."""
    bench = Bench(place)
    for name in KINDS:
        bench.sound(name)
    limit_addresses()
    sys.stdout, answers = sys.stderr, sys.stdout
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, seed = json.loads(line)
        print(json.dumps(vars(bench.try_one(name, seed))), file=answers, flush=True)


class Reader:
    """A child process that is started again whenever it crashed or hung."""

    def __init__(self, place: Path) -> None:
        self.place, self._process = place, None
        self._notes = (place / "notes.txt").open("ab")  # what readers say on stderr

    def try_one(self, name: str, seed: int) -> Outcome:
        """As `Bench.try_one`, and of a child that did not answer: why."""
        if self._process is None:
            command = [sys.executable, __file__, "--child", str(self.place)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._notes, text=True)
            if self._answer(10 * HANG_S) != "ready":
                raise RuntimeError(f"the reader does not start; see {self._notes.name}")
        process = self._process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child that is gone answers nothing
            process.stdin.write(json.dumps([name, seed]) + "\n")
            process.stdin.flush()
        line = self._answer(HANG_S)
        if line:
            return Outcome(**json.loads(line))
        hung = line is None
        self.close()
        return Outcome("HANG" if hung else "CRASH", "" if hung else f"exit code {process.returncode}")

    def _answer(self, seconds: float) -> str | None:
        """A line; empty where the child is gone, None where it does not answer."""
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._process.wait()
            self._process = None


def fuzz(kinds: list[str], each: int, seed: int, place: Path) -> dict[str, list[Outcome]]:
    """So many damaged inputs of each kind."""
    reader = Reader(place)
    try:
        return {name: [reader.try_one(name, seed * each + i) for i in range(each)] for name in kinds}
    finally:
        reader.close()
        reader._notes.close()


def table(found: dict[str, list[Outcome]]) -> str:
    """A row a kind, in Markdown."""
    lines = ["| kind of file | tried | " + " | ".join(OUTCOMES) + " | peak MiB |", "|---" * (len(OUTCOMES) + 3) + "|"]
    total: Counter[str] = Counter()
    for name, outcomes in found.items():
        counts = Counter(o.outcome for o in outcomes)
        total += counts
        memory = max(o.memory for o in outcomes) / 2**20
        lines.append(_row(name, counts, f"{memory:.1f}"))
    return "\n".join([*lines, _row("all", total, f"{max(o.memory for os in found.values() for o in os) / 2**20:.1f}")])


def _row(name: str, counts: Counter[str], memory: str) -> str:
    return f"| {name} | {counts.total()} | " + " | ".join(str(counts[o]) for o in OUTCOMES) + f" | {memory} |"


def main() -> int:
    """Exit code 1 where a reader failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2500, help="damaged inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="by semicolons; empty for all")
    parser.add_argument("--json", default="", help="write every outcome to this file")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child))
        return 0
    kinds = [name.strip() for name in given.kinds.split(";") if name.strip()] or list(KINDS)
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(kinds, -(-given.n // len(kinds)), given.seed, Path(place))
    print(table(found))
    failed = [(name, o) for name, os in found.items() for o in os if o.outcome in OUTCOMES[4:] or o.memory > ROOM]
    for name, o in failed:
        print(f"{name}: {o.outcome}, {o.memory / 2**20:.1f} MiB: {o.detail[:400]}", file=sys.stderr)
    if given.json:
        Path(given.json).write_text(json.dumps({name: [vars(o) for o in os] for name, os in found.items()}))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

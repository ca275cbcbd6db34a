"""How much memory do damaged large files take? A row a kind, for RESULTS.md: python benchmarks/fuzz_large.py --n 260.

As `fuzz.py`, with files whose parts (an episode, a trial of clips) are tens of MiB when decoded, and with bombs. Every
input is read in a process of its own, forked from one that never held a large file, so that nothing freed earlier hides
what is taken. The bar is twice the decoded size of a sound part, plus 64 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_bombs as bombs
import h5py  # noqa: F401 (imported before anything is forked)
import numpy as np
from fuzz import EVERYTHING, FRAMES, HANG_S, OUTCOMES, ROOM, Kind, Outcome, limit_addresses, outcome_of
from fuzz_bombs import BOMB_ROWS, CLIP_ROWS, PART, ROWS
from fuzz_faults import in_file, in_structure
from fuzz_files import Facts

import lewm.probes.clip_folder
import lewm.probes.clip_reader  # noqa: F401

TRIAL = PART // ROWS * CLIP_ROWS  # bytes of a clip


@dataclass(frozen=True)
class Large:
    """A kind of file, and the decoded size of a part of it."""

    kind: Kind
    part: int

    @property
    def bar(self) -> int:
        """Bytes that reading it may take."""
        return 2 * self.part + ROOM


def _shards(codec: str, damage: Any = bombs.in_shards, rows: int = ROWS, **about: Any) -> Large:
    read = partial(bombs.read_source, verify=about.pop("verify")) if "verify" in about else bombs.read_source
    return Large(Kind(partial(bombs.write_shards, codec=codec, rows=rows), damage, read, **about), PART // ROWS * rows)


def _hdf5(rows_of_chunk: int) -> Large:
    damage = bombs.any_of(in_structure, bombs.giant_dimension)
    write = partial(bombs.write_hdf5, rows_of_chunk=rows_of_chunk)
    return Large(Kind(write, damage, bombs.read_source, "flat.h5", EVERYTHING), PART)


def _clips(format: str, *damages: Any) -> Large:
    write = partial(bombs.write_clip_folder, format=format)
    return Large(Kind(write, bombs.any_of(*damages), bombs.read_clips, uncovered=EVERYTHING), 2 * TRIAL)


KINDS = {
    "shards, zstd": _shards("zstd", uncovered=EVERYTHING),
    "shards, zlib": _shards("zlib", uncovered=EVERYTHING),
    "shards, png": _shards("png", uncovered=EVERYTHING),
    "shards, raw": _shards("raw", uncovered=EVERYTHING),
    "shards, raw, verify full": _shards("raw", partial(in_file, "*.tar"), verify="full", uncovered=FRAMES),
    "bombs in zstd": _shards("zstd", bombs.bomb_in_frames, BOMB_ROWS, uncovered=EVERYTHING),
    "bombs in zlib": _shards("zlib", bombs.bomb_in_frames, BOMB_ROWS, uncovered=EVERYTHING),
    "bombs in png": _shards("png", bombs.bomb_in_frames, BOMB_ROWS, uncovered=EVERYTHING),
    "HDF5, a frame a chunk": _hdf5(1),
    "HDF5, 16 frames a chunk": _hdf5(16),
    "file of clips": Large(
        Kind(
            bombs.write_clips,
            bombs.any_of(in_structure, bombs.giant_dimension),
            bombs.read_clips,
            "clips.h5",
            EVERYTHING,
        ),
        3 * TRIAL,
    ),
    "images of clips": _clips("png", bombs.bomb_in_images, bombs.giant_actions, partial(in_file, "*.png")),
    "videos of clips, MP4": _clips("mp4", bombs.giant_picture),
    "videos of clips, AVI": _clips("avi", bombs.giant_picture),
}


def forked(action: Callable[[], Any], *, limited: bool = False) -> Any:
    """What an action returns in a process of its own, as JSON; an `Outcome` that says how it died instead.

    With `limited`, it has `HANG_S` seconds of a processor, and as much address space as a reader may have.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if limited:
                limit_addresses()
                resource.setrlimit(resource.RLIMIT_CPU, (int(HANG_S), int(HANG_S) + 5))
            os.write(writing, json.dumps(action()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        hung = not select.select([file], [], [], 10 * HANG_S if limited else None)[0]
        if hung:
            os.kill(child, signal.SIGKILL)
        told = file.read()
    _, status = os.waitpid(child, 0)
    if told:
        return json.loads(told)
    hung = hung or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    return vars(Outcome("HANG" if hung else "CRASH", f"status {status}"))


def fuzz(names: list[str], each: int, seed: int, place: Path) -> dict[str, list[Outcome]]:
    """So many damaged inputs of each kind."""
    found: dict[str, list[Outcome]] = {}
    for name in names:
        kind, sound = KINDS[name].kind, place / "sound"
        for codec in ("zstd", "zlib", "png"):  # made once, and not in every child
            if name.endswith(f"bombs in {codec}") or (codec, name) == ("png", "images of clips"):
                bombs.bombs_of(codec)
        shutil.rmtree(sound, ignore_errors=True)
        sound.mkdir()
        forked(lambda kind=kind, sound=sound: kind.write(sound))
        facts = forked(lambda kind=kind, sound=sound: kind.read(sound / kind.file))
        found[name] = [_try_one(name, facts, seed * each + i, sound, place / "work") for i in range(each)]
    return found


def _try_one(name: str, facts: Facts, seed: int, sound: Path, work: Path) -> Outcome:
    kind = KINDS[name].kind
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound, work)
    fault = forked(lambda: kind.damage(np.random.default_rng([seed, *name.encode()]), work))
    if isinstance(fault, dict):
        raise RuntimeError(f"no damage was done to {name} with seed {seed}")

    return Outcome(**forked(lambda: vars(outcome_of(kind, facts, work, fault)), limited=True))


def table(found: dict[str, list[Outcome]]) -> str:
    """A row a kind, in Markdown: outcomes, largest memory, and its share of the bar."""
    shown = [outcome for outcome in OUTCOMES if outcome != "skipped"]
    lines = [f"| kind of file | part, MiB | tried | {' | '.join(shown)} | peak MiB | of the bar |"]
    lines.append("|---" * (len(shown) + 5) + "|")
    for name, outcomes in found.items():
        counts, most, large = Counter(o.outcome for o in outcomes), max(o.memory for o in outcomes), KINDS[name]
        cells = [f"{large.part / 2**20:.1f}", str(len(outcomes)), *(str(counts[o]) for o in shown)]
        lines.append(f"| {name} | {' | '.join(cells)} | {most / 2**20:.1f} | {most / large.bar:.2f} |")
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 where a reader failed, or took more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=260, help="damaged inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="by semicolons; empty for all")
    parser.add_argument("--json", default="", help="write every outcome to this file")
    given = parser.parse_args()
    names = [name.strip() for name in given.kinds.split(";") if name.strip()] or list(KINDS)
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(names, -(-given.n // len(names)), given.seed, Path(place))
    print(table(found))
    failed = [
        (name, o) for name, os in found.items() for o in os if o.outcome in OUTCOMES[4:] or o.memory > KINDS[name].bar
    ]
    for name, o in failed:
        print(f"{name}: {o.outcome}, {o.memory / 2**20:.1f} MiB: {o.detail[:400]}", file=sys.stderr)
    if given.json:
        Path(given.json).write_text(json.dumps({name: [vars(o) for o in os] for name, os in found.items()}))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Does a run killed on some ranks go on, on others, with the same clips? python benchmarks/kill_ranks.py 1:2 1:4 2:1.

Every rank notes the clips of each of its optimiser steps; all are compared with those of the uninterrupted run on one
rank. Processes are started by Lightning's own launcher, which is told that there are cores enough.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from kills import SLOW, Child, Lab, ended, laboratory, read_notes, run_of, until

from lewm import checkpoint


def clips(notes: list[str]) -> dict[int, list[int]]:
    """Clips of each optimiser step that was begun."""
    words = [note.split() for note in notes if note.startswith("step ")]
    return {int(step): [int(clip) for clip in found] for _, step, *found in words}


def on_ranks(lab: Lab, folder: Path, world: int, name: str, slow: float = 0.0) -> Child:
    """Begin, or go on with, a run on `world` processes that note under `name`."""
    flags = ("--resume=auto", *(() if world == 1 else (f"--trainer.devices={world}", "--trainer.strategy=ddp")))
    watch = {"notes": str(folder / name), "slow": slow, "cores": world}
    return Child(folder, lab.argv(folder, 0, *flags), watch=watch, fresh=True)


def wrong_steps(lab: Lab, folder: Path, world: int, name: str) -> tuple[int, list[int]]:
    """How many steps the ranks took together, and those at which one had other clips than its share of the batch."""
    whole, wrong = clips(lab.notes), []
    taken = [clips(read_notes(folder, name, rank)) for rank in range(world)]
    for rank, mine in enumerate(taken):
        wrong += [step for step, found in mine.items() if found != whole[step][rank::world]]
    return min(map(len, taken)), wrong


def trial(lab: Lab, before: int, after: int, rng: random.Random) -> str:
    """Kill all ranks in the midst of an epoch, go on with another number, compare clips; a row of the table."""
    folder = lab.root / f"from{before}to{after}"
    child = on_ranks(lab, folder, before, "before", SLOW)
    wanted = rng.randrange(6, lab.steps - 4)
    until(child, lambda: f"step {wanted} " in "\n".join(read_notes(folder, "before", before - 1)))
    child.kill()
    newest, _ = checkpoint.newest_valid(folder / "lewm")
    ended(on_ranks(lab, folder, after, "after"), folder)
    (_, wrong), (steps, wrong_after) = (
        wrong_steps(lab, folder, before, "before"),
        wrong_steps(lab, folder, after, "after"),
    )
    assert newest is not None
    missed = lab.steps - (checkpoint.step_of(newest) or 0) - steps
    final = checkpoint.read(run_of(folder) / "checkpoints" / f"step={lab.steps}.ckpt")["ClipDataModule"]["clips"]
    outcome = "same clips" if not wrong and not wrong_after and not missed else f"OTHERS at {wrong + wrong_after}"
    ranks = f"killed on {before} at step {wanted}, resumed on {after} from {newest.stem}"
    return f"| {ranks} | {steps} | {outcome} | {final} |"


if __name__ == "__main__":
    pairs = [tuple(map(int, word.split(":"))) for word in sys.argv[1:] or ("1:2", "1:4")]
    with laboratory() as lab:
        print("| ranks | steps after the resume | clips at every step | position at the end |\n|---|---|---|---|")
        found = [trial(lab, before, after, random.Random(0)) for before, after in pairs]
    print("\n".join(found))
    sys.exit(any("OTHERS" in row for row in found))

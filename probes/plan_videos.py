"""A video of each shown rollout: start, what happens, what the model imagined, and the goal, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lewm.datasets.video import write_video
from lewm.paths import make_folder
from lewm.probes.panels import BLACK, side_by_side
from lewm.probes.plan_shown import Shown

FPS = 8.0
HELD = 8  # times that the last picture is shown
GREEN, RED = (22, 128, 60), (190, 40, 40)
PANELS = ("start", "what happens", "imagined", "goal")


def write_videos(shown: Sequence[Shown], out: Path) -> list[str]:
    """A GIF for each in the folder `videos`, named for the pair; their names."""
    folder = make_folder(out / "videos")
    names = []
    for one in shown:
        names.append(f"{one.rollout.key.replace('/', '_').replace(':', '_')}.gif")
        write_video(pictures(one), folder / names[-1], FPS)
    return names


def pictures(one: Shown) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """One picture a step; what is imagined is the end of the block that is being executed."""
    picture = np.zeros(0)
    for step in range(len(one.rollout.frames)):
        picture = composed(one, step)
        yield picture
    for _ in range(HELD):
        yield picture


def composed(one: Shown, step: int) -> UInt8[np.ndarray, "h w 3"]:
    """The four panels at one step, with their names above, and the step and the true distance beneath."""
    block = min(max(0, step - 1) // one.frameskip, len(one.imagined) - 1)
    frames = (one.rollout.frames[0], one.rollout.frames[step], one.imagined[block], one.goal)
    solved = one.rollout.solved_at is not None and step >= one.rollout.solved_at
    over = step == len(one.rollout.frames) - 1
    word, colour = ("solved", GREEN) if solved else ("not solved", RED) if over else ("", BLACK)
    says = f"step {step}, {one.distances[step]:.3g} from the goal"
    return side_by_side(frames, PANELS, f"{says}: {word}" if word else says, colour)

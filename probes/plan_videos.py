"""A video of each shown rollout: start, what happens, what the model imagined, and the goal, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from lewm.datasets.video import write_video
from lewm.paths import make_folder
from lewm.probes.plan_shown import Shown

SIDE = 160  # pixels a panel, at least
GAP, HEAD, FOOT = 8, 20, 24  # pixels between panels, above and below them
FPS = 8.0
HELD = 8  # times that the last picture is shown
BLACK, GREY, GREEN, RED = (23, 23, 23), (115, 115, 115), (22, 128, 60), (190, 40, 40)
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
    panels = [enlarged(frame) for frame in frames]
    h, w = panels[0].shape[:2]
    picture = Image.new("RGB", (4 * w + 5 * GAP, HEAD + h + FOOT), (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for i, (panel, name) in enumerate(zip(panels, PANELS, strict=True)):
        x = GAP + i * (w + GAP)
        picture.paste(Image.fromarray(panel), (x, HEAD))
        draw.text((x, 3), name, fill=GREY, font=font)
    solved = one.rollout.solved_at is not None and step >= one.rollout.solved_at
    over = step == len(one.rollout.frames) - 1
    word, colour = ("solved", GREEN) if solved else ("not solved", RED) if over else ("", BLACK)
    says = f"step {step}, {one.distances[step]:.3g} from the goal"
    draw.text((GAP, HEAD + h + 5), f"{says}: {word}" if word else says, fill=colour, font=font)
    return np.asarray(picture)


def enlarged(frame: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """A small frame's pixels as squares; grey ones in three channels."""
    times = max(1, -(-SIDE // max(frame.shape[:2])))
    return np.broadcast_to(frame, (*frame.shape[:2], 3)).repeat(times, axis=0).repeat(times, axis=1)

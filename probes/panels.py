"""Pictures of a film: frames side by side, their names above them and a line beneath."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

SIDE = 160  # pixels a panel, at least
GAP, HEAD, FOOT = 8, 20, 24  # pixels between panels, above and below them
BLACK, GREY = (23, 23, 23), (115, 115, 115)
Colour = tuple[int, int, int]


def side_by_side(
    frames: Sequence[UInt8[np.ndarray, "h w c"]], names: Sequence[str], says: str, colour: Colour = BLACK
) -> UInt8[np.ndarray, "y x 3"]:
    """One picture of frames of one size."""
    panels = [enlarged(frame) for frame in frames]
    h, w = panels[0].shape[:2]
    picture = Image.new("RGB", (len(panels) * (w + GAP) + GAP, HEAD + h + FOOT), (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for i, (panel, name) in enumerate(zip(panels, names, strict=True)):
        x = GAP + i * (w + GAP)
        picture.paste(Image.fromarray(panel), (x, HEAD))
        draw.text((x, 3), name, fill=GREY, font=font)
    draw.text((GAP, HEAD + h + 5), says, fill=colour, font=font)
    return np.asarray(picture)


def enlarged(frame: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """A small frame's pixels as squares; grey ones in three channels."""
    times = max(1, -(-SIDE // max(frame.shape[:2])))
    return np.broadcast_to(frame, (*frame.shape[:2], 3)).repeat(times, axis=0).repeat(times, axis=1)

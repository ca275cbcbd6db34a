"""A contact sheet of frames with the true and the probed place of each thing drawn over them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lewm.probes.pictures import draw_border
from lewm.probes.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, grid, legend_below, proxy, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = (RED, BLUE, PURPLE, GREEN, ORANGE, SKY)
PALE = 0.45
MARGIN = 0.12  # of a frame's side, around it, for places outside it
LOOKS = {  # marker and line
    "true": ({"marker": "o", "ms": 8, "mfc": "none"}, "-"),
    "probed": ({"marker": "x", "ms": 5}, ":"),
}


@dataclass(frozen=True)
class Mark:
    """A place in each frame in pixels, (0, 0) the upper left corner of the frame and (w, h) its lower right corner.

    Angles are in radians from x (right) towards y (down): as seen in the picture, they grow clockwise.
    """

    name: str
    true: Float[np.ndarray, "n 2"]
    probed: Float[np.ndarray, "n 2"]
    true_angle: Float[np.ndarray, " n"] | None = None
    probed_angle: Float[np.ndarray, " n"] | None = None


def poses(frames: UInt8[np.ndarray, "n h w c"], marks: list[Mark]) -> Figure:
    """A contact sheet, with each quantity's true place (ring) and the probed one (cross), and their directions."""
    n, h, w, c = frames.shape
    side, rows = max(1.8, 4.8 / max(n, 1)), max(1, -(-n // 6))
    with styled():
        figure, axes = grid(n, 6, width=side, height=side * h / w + 0.45 / rows)  # 0.45 for the legend
        for ax, frame in zip(axes, frames, strict=True):
            picture = frame[..., 0] if c == 1 else frame
            ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(0, w, h, 0))
            draw_border(ax, (0, w, 0, h), color=GREY, lw=0.6)
            ax.set(xlim=(-MARGIN * w, (1 + MARGIN) * w), ylim=((1 + MARGIN) * h, -MARGIN * h))
            ax.set_axis_off()
        handles = []
        for mark, colour in zip(marks, cycle(MARKS), strict=False):
            readings = (("true", mark.true, mark.true_angle), ("probed", mark.probed, mark.probed_angle))
            for kind, places, angles in readings:
                marker, ls = LOOKS[kind]
                handles.append(proxy(f"{mark.name}, {kind}", color=colour, ls="" if angles is None else ls, **marker))
                for i, ax in enumerate(axes):
                    draw_place(ax, places[i], None if angles is None else angles[i], (w, h), kind, colour)
        if any(outside(places, (w, h)).any() for mark in marks for places in (mark.true, mark.probed)):
            handles.append(proxy("pale: outside the picture", color=GREY, alpha=PALE, ls="", **LOOKS["probed"][0]))
        legend_below(figure, handles)
    return figure


def outside(places: Float[np.ndarray, "*n 2"], size: tuple[int, int]) -> Bool[np.ndarray, "*n"]:
    """Places that a picture of this size, (w, h), does not hold."""
    return np.asarray(((places < 0) | (places > size)).any(axis=-1))


def draw_place(
    ax: Axes, place: Float[np.ndarray, " 2"], angle: float | None, size: tuple[int, int], kind: str, colour: str
) -> None:
    """A marker and a line in its direction; one that lies far outside is drawn just outside, pale."""
    marker, ls = LOOKS[kind]
    margin = MARGIN / 2 * np.array(size)  # half: a place stays nearer to its own picture than to the next one
    alpha = PALE if outside(place, size) else 1.0
    x, y = np.clip(place, -margin, size + margin)
    step = 0.2 * min(size)
    # White around it, under all colours: it is seen on any ground, and hides no other mark.
    for paint, wider, zorder in (("white", 1.6, 2), (colour, 0, 3)):
        if angle is not None:
            ends = [x, x + step * np.cos(angle)], [y, y + step * np.sin(angle)]
            ax.plot(*ends, color=paint, alpha=alpha, ls=ls if paint == colour else "-", lw=1.4 + wider, zorder=zorder)
        ax.plot(x, y, color=paint, alpha=alpha, ls="", mew=1.5 + wider, clip_on=False, zorder=zorder, **marker)

"""Frames of single clips in surprise's figures: under the mean curve, and strips of the most extreme clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from lewm.datasets.violation import PLAIN, Clip
from lewm.probes.plots import GREY, new_figure, styled
from lewm.probes.trials import Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTHING = "no event in any clip"
WIDTH = 8.4  # inches, as all sizes below: what a page is wide
MARGIN, GAP = 0.15, 0.06
TITLE, BAR, NUMBER = 0.26, 0.3, 0.16  # heights in a strip
MOST = 12  # frames in a strip
TALLEST = 1.2
EDGE = "#D1D5DB"
SHARP = 256  # pixels that small frames are enlarged to, so that drawing them does not blur theirs
Place = tuple[float, float, float, float]  # left, top, width and height in inches from a figure's upper left corner


@dataclass(frozen=True)
class Strip:
    """A clip, the surprise at its steps, and the step of its event; step i leads to frame i + 1."""

    title: str
    colour: str
    clip: Clip
    surprise: Float[np.ndarray, " i"]
    event: int | None  # None where nothing happens


def clips_of(trials: Trials, wanted: Iterable[tuple[int, str]]) -> dict[tuple[int, str], Clip]:
    """Clips by trial's number and kind; the trials after the last one wanted are not made."""
    wanted, found = set(wanted), {}
    last = max((number for number, _ in wanted), default=-1)
    for number, trial in zip(range(last + 1), trials.each, strict=False):
        for kind in (kind for n, kind in wanted if n == number):
            found[number, kind] = trial.plain if kind == PLAIN else trial.versions[kind].clip
    return found


def said(text: str) -> Figure:
    """A sentence in the place of a figure that there is nothing for."""
    with styled():
        figure = new_figure(WIDTH, 0.5)
        canvas(figure).text(MARGIN, 0.3, text, color=GREY)
    return figure


def canvas(figure: Figure) -> Axes:
    """Axes over the whole figure, in inches from its upper left corner."""
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    ax.set(xlim=(0, width), ylim=(height, 0))
    return ax


def draw_frame(ax: Axes, frame: UInt8[np.ndarray, "h w c"], place: Place, border: str | None) -> None:
    """One frame on a canvas, grey where it has one channel; its pixels are squares with sharp edges."""
    from matplotlib.patches import Rectangle

    x, y, w, h = place
    picture = frame[..., :3] if frame.shape[-1] >= 3 else frame[..., 0]
    times = max(1, SHARP // max(frame.shape[:2]))
    picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(x, x + w, y + h, y), aspect="auto")
    ax.set(xlim=limits[0], ylim=limits[1])
    look = {"ec": border, "lw": 2.6} if border else {"ec": EDGE, "lw": 0.6}
    ax.add_patch(Rectangle((x, y), w, h, fill=False, zorder=3, **look))


def strips_figure(strips: list[Strip]) -> Figure:
    """Strips below each other: frames, the event's bordered, and below each the surprise at the step that led there.

    Bars are as high as a strip's largest step allows, whose number is in bold: numbers compare strips, bars steps.
    """
    shape = max((strip.clip.pixels.shape[1:3] for strip in strips), default=(1, 1))
    parts = [shown(strip) for strip in strips]
    columns = max([6, *(stop - start for start, stop in parts)])
    width = (WIDTH - 2 * MARGIN + GAP) / columns - GAP
    width = min(width, TALLEST * shape[1] / shape[0])
    size = width, width * shape[0] / shape[1]
    pitch = TITLE + size[1] + BAR + NUMBER + 3 * GAP
    with styled():
        figure = new_figure(WIDTH, 2 * MARGIN + pitch * max(1, len(strips)))
        ax = canvas(figure)
        for row, (strip, part) in enumerate(zip(strips, parts, strict=True)):
            draw_strip(ax, strip, part, MARGIN + row * pitch, size)
    return figure


def shown(strip: Strip, most: int = MOST) -> tuple[int, int]:
    """First frame shown and the one after the last: around the event, or else around the largest step."""
    num, largest = len(strip.clip.pixels), int(np.nanargmax(strip.surprise)) + 1
    middle = largest if strip.event is None else strip.event + 1
    if strip.event is not None and abs(largest - middle) < most:
        middle = (middle + largest) // 2  # both are seen
    start = int(np.clip(middle - most // 2, 0, max(0, num - most)))
    return start, min(num, start + most)


def draw_strip(ax: Axes, strip: Strip, part: tuple[int, int], top: float, size: tuple[float, float]) -> None:
    """One strip from `top` downwards."""
    from matplotlib.patches import Rectangle

    (width, height), largest = size, int(np.nanargmax(strip.surprise))
    highest = strip.surprise[largest]
    ax.text(MARGIN, top + TITLE - 0.08, strip.title, color=strip.colour, weight="bold", va="baseline")
    for column, frame in enumerate(range(*part)):
        x, y = MARGIN + column * (width + GAP), top + TITLE
        event = strip.event is not None and frame == strip.event + 1
        draw_frame(ax, strip.clip.pixels[frame], (x, y, width, height), strip.colour if event else None)
        if frame == 0 or np.isnan(value := strip.surprise[frame - 1]):
            continue
        bar = BAR * max(0.0, value / highest) if highest > 0 else 0.0
        base = y + height + GAP + BAR
        ax.add_patch(
            Rectangle(
                (x + width / 4, base - bar), width / 2, bar, color=strip.colour, lw=0, alpha=1.0 if event else 0.45
            )
        )
        ax.plot([x, x + width], [base, base], color=EDGE, lw=0.8)
        look = {"weight": "bold" if frame == largest + 1 else "normal", "fontsize": 7}
        ax.text(x + width / 2, base + NUMBER, short(value), ha="center", va="baseline", **look)


def short(value: float) -> str:
    """A number to two figures."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.2g}".rstrip(".")

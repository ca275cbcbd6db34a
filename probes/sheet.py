"""A contact sheet of trials: the frames around the event, one row a kind, for people to look at."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from lewm.datasets.violation import Clip
from lewm.probes.plots import GREY, KIND_COLOURS, new_figure, styled
from lewm.probes.trials import Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
# All in pixels.
SIDE = 144  # about that of a drawn frame: small ones are drawn larger by a whole factor
GAP = 10  # between frames
TITLE = 34  # above a row
MARGIN = 24
LINE = 24  # of a note
LEAST = 900  # width of the sheet: titles have to fit
BORDER = 5  # around the first wrong frame, 1 around the others
EDGE = "#D1D5DB"
NOTE_LETTERS = 90  # in a line


@dataclass(frozen=True)
class Strip:
    """A row: a clip, its first wrong frame, and what is said about it."""

    clip: Clip
    first: int
    title: str
    colour: str

    def shows(self, offset: int) -> bool:
        """Whether the clip has this frame, counted from the first wrong one."""
        return 0 <= self.first + offset < len(self.clip.pixels)


def contact_sheet(trials: Trials, frames_around: tuple[int, int] = (-2, 3)) -> Figure:
    """The frames from `frames_around[0]` to `frames_around[1]` around the first wrong one, which has a border.

    Each kind is shown by the first trial that has it, below the first trial's clip as it happened.
    """
    strips, missing = strips_of(trials)
    offsets = [
        offset
        for offset in range(frames_around[0], frames_around[1] + 1)
        if any(strip.shows(offset) for strip in strips)
    ]
    shape = strips[0].clip.pixels.shape[1:3] if strips else (1, 1)
    zoom = max(1, round(SIDE / max(shape)))
    notes = textwrap.wrap(f"in no clip: {', '.join(missing)}", NOTE_LETTERS) if missing else []
    sheet = Sheet(len(strips), len(offsets), shape[0] * zoom, shape[1] * zoom, len(notes))
    with styled():
        figure = new_figure(sheet.width / DPI, sheet.height / DPI)
        figure.set_layout_engine("none")  # frames are placed to the pixel
        figure.set_dpi(DPI)
        for row, strip in enumerate(strips):
            draw_title(figure, sheet, row, strip)
            for column, offset in enumerate(offsets):
                if strip.shows(offset):
                    ax = figure.add_axes(sheet.place(row, column))
                    draw_frame(ax, strip.clip.pixels[strip.first + offset], strip.colour if offset == 0 else None)
        for column, offset in enumerate(offsets):
            x, bottom, width, _ = sheet.place(max(0, len(strips) - 1), column)
            label = "event" if offset == 0 else f"{offset:+d}"
            figure.text(
                x + width / 2, bottom - GAP / sheet.height, label, fontsize=8, color=GREY, ha="center", va="top"
            )
        y = (MARGIN / 2) / sheet.height
        figure.text(MARGIN / sheet.width, y, "\n".join(notes), fontsize=8, color=GREY, va="bottom")
    return figure


def strips_of(trials: Trials) -> tuple[list[Strip], list[str]]:
    """The first trial's plain clip and one clip of every kind, in the order of the kinds; and kinds without any."""
    found: dict[str, Strip] = {}
    plain: list[Strip] = []
    for trial in trials.each:
        if not plain:
            events = [version.event for version in trial.versions.values()] or [len(trial.plain.actions) // 2]
            plain = [Strip(trial.plain, events[0] + 1, "plain: as it happened", KIND_COLOURS["unperturbed"])]
        for name in trial.versions.keys() - found.keys():
            version, nature = trial.versions[name], trials.natures[name]
            title = f"{name} ({nature})" + remark(version.clip, trial.plain)
            found[name] = Strip(version.clip, version.event + 1, title, KIND_COLOURS[nature])
        if len(found) == len(trials.natures):
            break
    kinds = list(trials.natures)
    return plain + [found[name] for name in kinds if name in found], [name for name in kinds if name not in found]


def remark(clip: Clip, plain: Clip) -> str:
    """What the eye cannot tell: that the pictures are as they were."""
    return ": frames are real, actions are not" if np.array_equal(clip.pixels, plain.pixels) else ""


@dataclass(frozen=True)
class Sheet:
    """Where things are on a sheet of rows of frames, in pixels from its upper left corner."""

    rows: int
    columns: int
    frame_height: int
    frame_width: int
    notes: int  # lines below

    @property
    def width(self) -> int:
        return max(LEAST, 2 * MARGIN + self.columns * (self.frame_width + GAP) - GAP)

    @property
    def height(self) -> int:
        return 3 * MARGIN + max(1, self.rows) * (TITLE + self.frame_height + GAP) + LINE * self.notes

    def top(self, row: int) -> int:
        """Upper edge of a row's frames."""
        return MARGIN // 2 + row * (TITLE + self.frame_height + GAP) + TITLE

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a frame, as parts of the sheet."""
        left, bottom = MARGIN + column * (self.frame_width + GAP), self.height - self.top(row) - self.frame_height
        w, h = self.width, self.height
        return left / w, bottom / h, self.frame_width / w, self.frame_height / h


def draw_title(figure: Figure, sheet: Sheet, row: int, strip: Strip) -> None:
    """The kind and its nature above a row."""
    y = 1 - (sheet.top(row) - 10) / sheet.height
    figure.text(MARGIN / sheet.width, y, strip.title, color=strip.colour, weight="bold", va="baseline")


def draw_frame(ax: Axes, frame: UInt8[np.ndarray, "h w c"], border: str | None) -> None:
    """One frame, grey where it has one channel, each pixel a square."""
    picture = frame[..., :3] if frame.shape[-1] >= 3 else frame[..., 0]
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set(color=border or EDGE, linewidth=(BORDER if border else 1) * 72 / DPI)

"""Frames in rows: what is decoded, rollouts as they were and were imagined, attention; and films of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from lewm.datasets.video import write_video
from lewm.paths import make_folder
from lewm.probes.decoding import Dream
from lewm.probes.panels import side_by_side
from lewm.probes.plots import BLACK, BLUE, GREY, new_figure, styled
from lewm.probes.surprise_strips import GAP, MARGIN, TITLE, WIDTH, canvas, draw_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL = 0.95  # inches left of a row, for its name
FPS = 3.0
HELD = 3  # times that the last picture of a film is shown
HEADS = 3  # of the last layer
DECODED = 10  # test frames
WAYS = {"decoder": "decoded", "untrained": "decoded, untrained", "nearest": "nearest, training"}
HOT = np.array([213, 94, 0])  # of Okabe and Ito: what is attended to


def rollouts(shown: Sequence[Dream]) -> Figure:
    """Each rollout as four rows of frames, one block of actions from column to column; blue borders are imagined."""
    first = shown[0]
    num, h, w, _ = first.true.shape
    width = (WIDTH - 2 * MARGIN - LABEL + GAP) / num - GAP
    height = width * h / w
    pitch = TITLE + len(first.rows) * (height + GAP) + 3 * GAP + 0.12
    with styled():
        figure = new_figure(WIDTH, 2 * MARGIN + pitch * len(shown))
        ax = canvas(figure)
        for i, dream in enumerate(shown):
            draw_dream(ax, dream, MARGIN + i * pitch, (width, height))
    return figure


def draw_dream(ax: Axes, dream: Dream, top: float, size: tuple[float, float]) -> None:
    """One rollout from `top` downwards; numbers of blocks ahead stand below its columns."""
    width, height = size
    ax.text(MARGIN, top + TITLE - 0.08, dream.title, weight="bold", va="baseline")
    draw_rows(
        ax, dream.rows, top + TITLE, size, lambda name, t: BLUE if "imagined" in name and t >= dream.context else None
    )
    for t in range(len(dream.true)):
        x, y = MARGIN + LABEL + t * (width + GAP) + width / 2, top + TITLE + len(dream.rows) * (height + GAP) + 0.12
        ahead = t - dream.context + 1
        label = f"+{ahead}" if ahead > 0 else "context"
        ax.text(x, y, label, fontsize=7, color=GREY if ahead <= 0 else BLACK, ha="center", va="baseline")


def draw_rows(
    ax: Axes,
    rows: dict[str, UInt8[np.ndarray, "t h w c"]],
    top: float,
    size: tuple[float, float],
    border: Callable[[str, int], str | None],
) -> None:
    """Rows of frames with their names left of them."""
    width, height = size
    for i, (name, frames) in enumerate(rows.items()):
        y = top + i * (height + GAP)
        ax.text(MARGIN, y + height / 2, name.replace(", ", ",\n"), fontsize=7.5, color=GREY, va="center")
        for t, frame in enumerate(frames):
            draw_frame(ax, frame, (MARGIN + LABEL + t * (width + GAP), y, width, height), border(name, t))


def write_films(shown: Sequence[Dream], out: Path) -> list[str]:
    """A GIF of each rollout in the folder `videos`; their names."""
    folder, names = make_folder(out / "videos"), []
    for i, dream in enumerate(shown):
        names.append(f"rollout_{i}.gif")
        write_video(pictures(dream), folder / names[-1], FPS)
    return names


def pictures(dream: Dream) -> Iterator[UInt8[np.ndarray, "y x 3"]]:
    """One picture a block, the last one held."""
    last = len(dream.true) - 1
    for t in (*range(last + 1), *[last] * HELD):
        ahead = t - dream.context + 1
        says = f"{dream.title}: " + (f"{ahead} block{'s' * (ahead > 1)} ahead" if ahead > 0 else "context, all real")
        yield side_by_side([frames[t] for frames in dream.rows.values()], tuple(dream.rows), says)


def attention(frames: UInt8[np.ndarray, "n h w c"], maps: dict[str, Float[np.ndarray, "n i j"]]) -> Figure:
    """Frames, and beside each the same frame with what is attended to in colour; each map is scaled by its largest."""
    n, h, w, _ = frames.shape
    columns = len(maps) + 1
    width = min((WIDTH - 2 * MARGIN + GAP) / columns - GAP, 1.3)
    height = width * h / w
    with styled():
        figure = new_figure(2 * MARGIN + columns * (width + GAP), 2 * MARGIN + TITLE + n * (height + GAP))
        ax = canvas(figure)
        for column, name in enumerate(["frame", *maps]):
            x = MARGIN + column * (width + GAP)
            ax.text(x, MARGIN + TITLE - 0.1, name, fontsize=7.5, color=BLACK, va="baseline")
            for row, frame in enumerate(frames):
                picture = frame if column == 0 else heated(frame, maps[name][row])
                draw_frame(ax, picture, (x, MARGIN + TITLE + row * (height + GAP), width, height), None)
    return figure


def heated(frame: UInt8[np.ndarray, "h w c"], weights: Float[np.ndarray, "i j"]) -> UInt8[np.ndarray, "h w 3"]:
    """The frame in pale grey under the weights, as opaque as they are large."""
    h, w = frame.shape[:2]
    rows, columns = (np.arange(side) * n // side for side, n in ((h, weights.shape[0]), (w, weights.shape[1])))
    share = (weights / max(float(weights.max()), 1e-12))[rows][:, columns, None]
    grey = 255 - 0.6 * (255 - frame.mean(axis=2, keepdims=True))
    return np.round((1 - 0.9 * share) * grey + 0.9 * share * HOT).astype(np.uint8)


def named(weights: Float[np.ndarray, "n l m i j"]) -> dict[str, Float[np.ndarray, "n i j"]]:
    """The maps that are shown: mean over heads of the last two layers, then heads of the last one."""
    num = weights.shape[1]
    found = {f"layer {layer + 1}": weights[:, layer].mean(axis=1) for layer in range(max(0, num - 2), num)}
    heads = weights.shape[2] if weights.shape[2] > 1 else 0
    return found | {f"layer {num}, head {m + 1}": weights[:, -1, m] for m in range(min(heads, HEADS))}


def decoded(true: UInt8[np.ndarray, "n h w c"], shown: dict[str, UInt8[np.ndarray, "n h w c"]]) -> Figure:
    """Test frames, and below each what every way makes of its embedding."""
    kept = np.arange(min(DECODED, len(true))) * len(true) // min(DECODED, len(true))
    rows = {"the frame": true[kept]} | {WAYS[name]: frames[kept] for name, frames in shown.items()}
    num, (h, w) = len(kept), true.shape[1:3]
    width = (WIDTH - 2 * MARGIN - LABEL + GAP) / num - GAP
    height = width * h / w
    with styled():
        figure = new_figure(WIDTH, 2 * MARGIN + len(rows) * (height + GAP))
        ax = canvas(figure)
        draw_rows(ax, rows, MARGIN, (width, height), lambda name, column: None)
    return figure

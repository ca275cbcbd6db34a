"""Mean surprise around the event, with the frames that it is about."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from lewm.datasets.violation import PLAIN, Clip
from lewm.probes.plots import (
    BLACK,
    GREY,
    KIND_COLOURS,
    grid,
    kind_looks,
    legend_below,
    new_figure,
    once,
    readable,
    styled,
)
from lewm.probes.surprise import Steps, aligned, present
from lewm.probes.surprise_strips import GAP, MARGIN, NOTHING, TALLEST, WIDTH, canvas, clips_of, draw_frame, said
from lewm.probes.trials import Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 3  # kinds that one panel has room for
AROUND = 5  # steps before and after the event in the mean curve
LEFT, PANEL = 1.0, 2.5  # inches: left of the panel over the frames, and its height
LABEL = 14  # letters in a line beside a row of frames
SPREAD = 20  # largest mean over smallest from which on panels of many kinds have a logarithmic axis

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # steps from the event, mean, standard error


def curves(steps: Steps, trials: Trials) -> Figure:
    """Mean surprise around the event with a band of one standard error on each side.

    Few kinds share a panel, with the frames of one trial under it; of many each has its own, all with the same axes.
    """
    kinds = present(steps)
    if not kinds:
        return said(NOTHING)
    return curves_over_frames(steps, trials, kinds) if len(kinds) <= FEW else curves_by_kind(steps, kinds)


def around(values: Float[np.ndarray, "m i"], event: Int[np.ndarray, " m"]) -> Curve:
    """Steps near the event, and mean and standard error there; steps that no clip has are left out."""
    relative, at = aligned(values, event)
    count = (~np.isnan(at)).sum(axis=0)
    near = (abs(relative) <= AROUND) & (count > 0)
    relative, at, count = relative[near], at[:, near], count[near]
    mean = np.nansum(at, axis=0) / count
    error = np.sqrt(np.nansum((at - mean) ** 2, axis=0) / np.maximum(count - 1, 1) / count)
    return relative, mean, error


def draw_curve(ax: Axes, curve: Curve, label: str, colour: str) -> None:
    """A mean with its band."""
    relative, mean, error = curve
    ax.plot(relative, mean, "o-", ms=3, color=colour, label=label)
    # A logarithmic axis has no place for 0 or less, where a band of few clips may end.
    ax.fill_between(relative, np.maximum(mean - error, 0.05 * mean), mean + error, color=colour, alpha=0.18, lw=0)


def curves_over_frames(steps: Steps, trials: Trials, kinds: list[str]) -> Figure:
    """One panel, and below each step the frame that it leads to, in a typical trial."""
    found = {PLAIN: plain_curve(steps)}
    found |= {kind: around(p.disturbed, p.event) for kind in kinds for p in [steps.pairs("model", kind)]}
    colours = {PLAIN: GREY} | {kind: look["color"] for kind, look in kind_looks(steps.natures).items()}
    rows = frames_under(steps, trials, kinds)
    relative = np.arange(min(x.min() for x, _, _ in found.values()), max(x.max() for x, _, _ in found.values()) + 1)
    frame_height, frame_width = rows[PLAIN][0].pixels.shape[1:3]
    cell = (WIDTH - LEFT - MARGIN) / len(relative)
    width = min(0.94 * cell, TALLEST * frame_width / frame_height)
    size = width, width * frame_height / frame_width
    top, pitch = 0.35 + PANEL + 0.3, size[1] + GAP
    height = top + pitch * len(rows) + 0.4
    with styled():
        figure = new_figure(WIDTH, height)
        under = canvas(figure)
        panel = (LEFT / WIDTH, 1 - (0.35 + PANEL) / height, 1 - (LEFT + MARGIN) / WIDTH, PANEL / height)
        ax = figure.add_axes(panel)
        for kind, curve in found.items():
            draw_curve(ax, curve, kind, colours[kind])
        ax.axvline(0, color=BLACK, lw=0.8, ls=":", zorder=1)
        ax.set(title="Surprise around the event", ylabel="prediction error", xticks=relative)
        ax.set(xlim=(relative[0] - 0.5, relative[-1] + 0.5), ylim=(0, None))
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=len(found), borderpad=0)
        for row, (kind, (clip, event)) in enumerate(rows.items()):
            y = top + row * pitch
            name = textwrap.fill(kind.replace("_", " "), LABEL)
            under.text(LEFT - 0.08, y + pitch / 2, name, color=colours[kind], ha="right", va="center", fontsize=8)
            for column, step in enumerate(relative + event):
                if 0 <= step + 1 < len(clip.pixels):
                    x = LEFT + (column + 0.5) * cell - width / 2
                    draw_frame(under, clip.pixels[step + 1], (x, y, *size), colours[kind] if step == event else None)
        below = "steps from the event; below each, the frame that it leads to in a typical clip"
        under.text(LEFT + (WIDTH - LEFT - MARGIN) / 2, height - 0.15, below, ha="center", va="baseline")
    return figure


def plain_curve(steps: Steps) -> Curve:
    """The undisturbed clips of trials with any event, around the first one."""
    has = (steps.event >= 0).any(axis=1)
    own = steps.event[has]
    return around(steps.by_scorer["model"][has, 0], np.where(own < 0, own.max(), own).min(axis=1))


def frames_under(steps: Steps, trials: Trials, kinds: list[str]) -> dict[str, tuple[Clip, int]]:
    """Clip and event of the undisturbed clip and of each kind, all of one trial where that has every kind."""
    columns = {kind: list(steps.natures).index(kind) for kind in kinds}
    most = typical(steps, kinds)
    wanted = {kind: most if steps.event[most, columns[kind]] >= 0 else typical(steps, [kind]) for kind in kinds}
    clips = clips_of(trials, [(most, PLAIN), *((number, kind) for kind, number in wanted.items())])
    events = {kind: int(steps.event[number, columns[kind]]) for kind, number in wanted.items()}
    own = next(events[kind] for kind in kinds if wanted[kind] == most)
    return {PLAIN: (clips[most, PLAIN], own)} | {k: (clips[wanted[k], k], events[k]) for k in kinds}


def typical(steps: Steps, kinds: list[str]) -> int:
    """Of the trials with the most of these kinds, the one whose scores are nearest to the kinds' medians by rank."""
    columns = [list(steps.natures).index(kind) for kind in kinds]
    has = steps.event[:, columns] >= 0
    off = np.zeros(len(has))
    for i, kind in enumerate(kinds):
        score = np.nanmax(steps.pairs("model", kind).disturbed, axis=1)
        off[has[:, i]] += abs(score.argsort(kind="stable").argsort(kind="stable") / len(score) - 0.5)
    return int(np.where(has.sum(axis=1) == has.sum(axis=1).max(), off, np.inf).argmin())


def curves_by_kind(steps: Steps, kinds: list[str]) -> Figure:
    """One panel a kind: its clips, and the same clips undisturbed in grey."""
    pairs = {kind: steps.pairs("model", kind) for kind in kinds}
    found = {k: (around(p.plain, p.event), around(p.disturbed, p.event)) for k, p in pairs.items()}
    means = np.concatenate([mean for both in found.values() for _, mean, _ in both])
    with styled():
        figure, axes = grid(len(kinds), 3, width=WIDTH / 3, height=1.9)
        for i, (ax, kind) in enumerate(zip(axes, kinds, strict=True)):
            nature = steps.natures[kind]
            for curve, label in zip(found[kind], (PLAIN, nature), strict=True):
                draw_curve(ax, curve, label, KIND_COLOURS[label])
            ax.axvline(0, color=BLACK, lw=0.8, ls=":", zorder=1)
            ax.set_title(f"{kind} (n = {len(pairs[kind].event)})", fontsize=9)
            ax.set(xlim=(-AROUND - 0.5, AROUND + 0.5), xticks=range(-4, AROUND, 2))
            ax.sharey(axes[0])
            ax.tick_params(labelleft=i % 3 == 0)
            ax.set_xlabel("steps from the event" if i // 3 == (len(kinds) - 1) // 3 else "")
        if means.min() > 0 and means.max() > SPREAD * means.min():
            axes[0].set(yscale="log", ylim=(0.6 * means.min(), 1.6 * means.max()))
            readable(axes[0].yaxis)
        else:
            axes[0].set_ylim(bottom=0)
        figure.supylabel("prediction error", fontsize=9)
        legend_below(figure, once(axes))
    return figure

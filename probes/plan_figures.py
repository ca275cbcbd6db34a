"""Pictures of a planning result: costs of the search, latent against true distance, drift, and a few episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from lewm.plan.evaluate import Evaluation, Rollout
from lewm.probes.plan_shown import Shown
from lewm.probes.plots import BLACK, BLUE, GREEN, GREY, ORANGE, RED, grid, new_figure, readable, styled
from lewm.probes.surprise_strips import GAP, MARGIN, TITLE, WIDTH, canvas, draw_frame, said

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 12  # frames in a strip, start and goal included
STRIPS = 4  # rollouts in the picture of episodes
NO_SEARCH = "no search: this solver asks no model"


class Planned(Protocol):
    """What the figures need to know of a run."""

    @property
    def planned(self) -> Evaluation: ...

    def distances(self, rollout: Rollout) -> np.ndarray: ...


def plan_figures(runs: Planned, shown: Sequence[Shown], result: dict[str, Any]) -> dict[str, Figure]:
    """All figures of one result, by file name."""
    return {
        "costs": costs(result["costs"]),
        "distances": distances(*block_distances(runs)),
        "drift": drift(result["drift"]),
        "episodes": episodes(shown[:STRIPS]),
    }


def block_distances(runs: Planned) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Latent and true distance to the goal after every executed block of every rollout, and the block's number."""
    latent, true, number = [], [], []
    for rollout in runs.planned.rollouts:
        num = len(rollout.latent)
        if num:
            skip = (len(rollout.states) - 1) // num
            latent += rollout.latent
            true += runs.distances(rollout)[skip::skip].tolist()
            number += range(1, num + 1)
    return np.array(latent), np.array(true), np.array(number)


def along(values: Float[np.ndarray, " n"], number: Int[np.ndarray, " n"]) -> Float[np.ndarray, "3 m"]:
    """Quartiles by block over all rollouts; one that has arrived keeps its last value, or the rest would look far."""
    starts = np.flatnonzero(number == 1)
    rows = np.split(values, starts[1:])
    longest = max(map(len, rows))
    return np.quantile([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows], [0.25, 0.5, 0.75], axis=0)


def costs(rows: list[dict[str, Any]]) -> Figure:
    """Least cost among an iteration's candidates, and their mean cost."""
    if not rows:
        return said(NO_SEARCH)
    with styled():
        figure = new_figure(WIDTH / 2, 3.0)
        ax = figure.subplots()
        x = [row["iteration"] for row in rows]
        low, middle, high, mean = (
            [row[name] for row in rows] for name in ("best_p10", "best_median", "best_p90", "mean_median")
        )
        ax.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0, label="least, central 80 %")
        ax.plot(x, middle, color=BLUE, label="least, median over plans")
        ax.plot(x, mean, color=GREY, ls="--", label="mean of candidates, median")
        if min(low) > 0:
            ax.set_yscale("log")
            readable(ax.yaxis)
        ax.set(title="Cost of the search", xlabel="iteration", ylabel="predicted |z - goal|²")
        ax.legend()
    return figure


def distances(latent: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"], number: Int[np.ndarray, " n"]) -> Figure:
    """Latent against true distance to the goal after every block: who lowers the one should lower the other."""
    if len(latent) == 0:
        return said("nothing was executed")
    with styled():
        figure, (ax, over) = grid(2, 2, width=WIDTH / 2, height=3.2)
        ax.scatter(true, latent, s=7, alpha=0.35, color=BLUE, lw=0)
        if latent.min() > 0:
            ax.set_yscale("log")
            readable(ax.yaxis)
        ax.set(title="After each block", xlabel="true distance to the goal", ylabel="latent |z - goal|²")
        blocks = np.unique(number)
        for values, colour, label, side in ((true, BLACK, "true", over), (latent, BLUE, "latent", over.twinx())):
            low, middle, high = along(values, number)
            side.fill_between(blocks, low, high, color=colour, alpha=0.12, lw=0)
            side.plot(blocks, middle, "o-", ms=3.5, color=colour)
            side.set_ylabel(f"{label} distance", color=colour)
            side.set_ylim(bottom=0)
            side.grid(visible=False)
        over.set(title="Along the rollouts, median and quartiles", xlabel="blocks executed", xticks=blocks)
    return figure


def drift(rows: list[dict[str, Any]]) -> Figure:
    """How far predictions were from what came, by how many blocks ahead they were made."""
    if not rows:
        return said("nothing was executed")
    with styled():
        figure = new_figure(WIDTH / 2, 3.0)
        ax = figure.subplots()
        x = [row["block"] for row in rows]
        ax.fill_between(
            x, [r["p10"] for r in rows], [r["p90"] for r in rows], color=ORANGE, alpha=0.18, lw=0, label="central 80 %"
        )
        mean = np.array([row["mean"] for row in rows])
        bounds = np.array([row["ci95"] for row in rows], dtype=float)
        bounds = np.where(np.isnan(bounds), mean[:, None], bounds)
        error = np.abs(bounds - mean[:, None]).T
        ax.errorbar(x, mean, yerr=error, fmt="o-", ms=4, color=RED, capsize=3, label="mean [95 %]")
        ax.set(title="Drift of executed plans", xlabel="blocks ahead", xticks=x)
        ax.set_ylabel("mean (predicted - realised)²")
        ax.set_ylim(bottom=0)
        ax.legend()
    return figure


def episodes(shown: Sequence[Shown]) -> Figure:
    """A few rollouts: start, what happened after every block, and goal; below it what the model had imagined.

    A plan begins at an orange border. An imagined embedding is shown by the frame, of the same part of the data, whose
    own embedding is nearest to it.
    """
    if not shown:
        return said("no episode was planned for: all were solved at the start")
    h, w = shown[0].goal.shape[:2]
    num = max(min(len(one.imagined), COLUMNS - 2) for one in shown)
    width = (WIDTH - 2 * MARGIN + GAP) / max(num + 2, 7) - GAP
    size = width, width * h / w
    pitch = TITLE + 2 * (size[1] + GAP) + 2 * GAP
    with styled():
        figure = new_figure(WIDTH, 2 * MARGIN + pitch * len(shown))
        ax = canvas(figure)
        for row, one in enumerate(shown):
            _draw(ax, one, (MARGIN + row * pitch, *size), num)
    return figure


def _draw(ax: Axes, one: Shown, place: tuple[float, float, float], num: int) -> None:
    top, width, height = place
    ax.text(MARGIN, top + TITLE - 0.08, one.title, weight="bold", va="baseline")
    for column in range(min(num, len(one.imagined)) + 1):
        x, y = MARGIN + column * (width + GAP), top + TITLE
        draw_frame(ax, one.after_blocks[column], (x, y, width, height), BLACK if column == 0 else None)
        if column:
            colour = ORANGE if one.rollout.ahead[column - 1] == 1 else None  # a plan begins
            draw_frame(ax, one.imagined[column - 1], (x, y + height + GAP, width, height), colour)
    x = MARGIN + (num + 1) * (width + GAP)
    draw_frame(ax, one.goal, (x, top + TITLE, width, height), GREEN if one.solved else RED)
    look = {"fontsize": 6.5, "va": "top", "color": GREY}
    below = top + TITLE + height + GAP + 0.04
    ax.text(MARGIN, below, "start; above\nwhat happened,\nbelow what\nwas imagined", **look)
    ax.text(x, below, "goal", **look)

"""Pictures of a latent space: maps coloured by what the embeddings are of, and how straight its paths are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lewm.probes.latent_map import Colour
from lewm.probes.look_tables import KINDS
from lewm.probes.plots import BLUE, GREEN, GREY, ORANGE, grid, new_figure, styled, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"embedding": BLUE, "imagined": GREEN, "untrained": GREY, "pixels": ORANGE}
LOGGED = "val/straightness"


def maps_figure(maps: dict[str, Float[np.ndarray, "n 2"]], colours: list[Colour], about: dict[str, Any]) -> Figure:
    """A row a number, a column a map; the same frames are at the same places in all rows."""
    share = about["pca_variance"]
    with styled():
        figure, axes = grid(len(maps) * len(colours), len(maps), width=4.2, height=2.7)
        for i, ax in enumerate(axes):
            (name, points), colour = list(maps.items())[i % len(maps)], colours[i // len(maps)]
            draw_points(ax, points, colour)
            ax.set(xticks=[], yticks=[], title=name if i < len(maps) else "")
            if name == "PCA":
                ax.set(xlabel=f"{100 * share[0]:.0f} % of the variance", ylabel=f"{100 * share[1]:.0f} %")
    return figure


def draw_points(ax: Axes, points: Float[np.ndarray, "n 2"], colour: Colour) -> None:
    """Frames as points with their colour bar; where the number is not known they are grey."""
    known = np.isfinite(colour.values)
    ax.scatter(*points[~known].T, s=5, color="#D1D5DB", lw=0)
    how = {"cmap": "twilight", "vmin": -180, "vmax": 180} if colour.cyclic else {"cmap": "viridis"}
    drawn = ax.scatter(*points[known].T, s=5, c=colour.values[known], lw=0, **how)
    bar = ax.figure.colorbar(drawn, ax=ax, label=wrapped(colour.name))
    bar.outline.set_visible(False)  # type: ignore[operator]
    if colour.cyclic:
        bar.set_ticks([-180, -90, 0, 90, 180])


def straightness_figure(found: dict[str, dict[str, Any]], logged: tuple[np.ndarray, np.ndarray] | None) -> Figure:
    """The checkpoint's paths with their intervals; left of it how it came there, where the run's log says so."""
    with styled():
        figure = new_figure(8.4 if logged else 4.6, 2.6)
        axes = figure.subplots(1, 2 if logged else 1, squeeze=False, sharey=False)[0]
        if logged:
            steps, values = logged
            axes[0].plot(steps, values, "o-" if len(steps) < 20 else "-", ms=3, color=BLUE)
            axes[0].set(title="Over training, validation clips", xlabel="optimiser step", ylabel="mean cosine")
        ax = axes[-1]
        for i, (name, row) in enumerate(reversed(found.items())):
            colour, (low, high) = COLOURS[name], row["ci95"]
            ax.plot([low, high], [i, i], color=colour, lw=1.6)
            ax.plot(row["mean"], i, "o", ms=5, color=colour)
        ax.set(title="This checkpoint", xlabel="mean cosine of consecutive velocities", ylim=(-0.6, len(found) - 0.4))
        ax.set_yticks(range(len(found)), [KINDS[name] for name in reversed(found)])
        ax.axvline(0, color=GREY, lw=0.8)
    return figure

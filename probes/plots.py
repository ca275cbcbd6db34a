"""The evaluators' plots: matplotlib figures in one look, colours told apart by colour-blind readers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.datasets.violation import Nature

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito, Color universal design, 2008.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#6B7280",
)
STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9CA3AF",
    "axes.grid": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
}
BLACK = "#111827"
LINE = 24  # characters of a label beside an axis
PROBES = {"linear": ("linear", BLUE), "mlp": ("MLP", ORANGE)}
KIND_COLOURS = {"unperturbed": GREY, "visual": ORANGE, "physical": BLUE}
KIND_CYCLES: dict[
    Nature, tuple[str, ...]
] = {  # of kinds within a nature: few physical ones are cool, few visual ones warm
    "physical": (BLUE, GREEN, SKY, BLACK, PURPLE, RED),
    "visual": (ORANGE, RED, PURPLE, BLACK, GREEN, SKY),
}
MARKERS = "osD^vP*X"


@contextmanager
def styled() -> Iterator[None]:
    """Inside it figures get our look; matplotlib's own settings are left as they were."""
    import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, of no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def grid(number: int, columns: int, width: float = 3.2, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure of `number` axes; places that are left over, the only one among them, stay empty."""
    columns = max(1, min(columns, number))
    rows = max(1, -(-number // columns))
    figure = new_figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[number:]:
        spare.set_axis_off()
    return figure, list(axes[:number])


def wrapped(label: str) -> str:
    """A label in lines that an axis has room for."""
    return textwrap.fill(label, LINE)


def proxy(label: str, **look: Any) -> Artist:
    """A line that stands in a legend only."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def once(axes: Iterable[Axes]) -> list[Artist]:
    """What has a label, each label once."""
    found: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values())


def legend_below(figure: Figure, handles: list[Artist]) -> None:
    """One legend for all panels, under them, over no data."""
    if not handles:
        return
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() // 1.6)))
    columns = -(-len(handles) // max(1, rows))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.8)


def kind_looks(natures: dict[str, Nature]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each kind, different within a nature for up to 24 of them."""
    cycles = {nature: zip(cycle(colours), cycle(MARKERS), strict=False) for nature, colours in KIND_CYCLES.items()}
    pairs = {kind: next(cycles[nature]) for kind, nature in natures.items()}
    return {kind: {"color": colour, "marker": marker} for kind, (colour, marker) in pairs.items()}


def readable(axis: Axis) -> None:
    """Plain numbers at the ticks of a logarithmic axis, and few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    subs = (1,) if high > 100 * low else (1, 3) if high > 30 * low else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=subs, numticks=5 if subs == (1,) else 8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def correlations(targets: dict[str, Any]) -> Figure:
    """r of each probe with its interval, beside the controls, one panel a quantity, all over the same range."""
    rows = {name: rows_of_r(target) for name, target in targets.items()}
    ends = [end for found in rows.values() for _, low, high in found.values() for end in (*low, *high)]
    ends = [end for end in ends if np.isfinite(end)]
    most = max((len(found) for found in rows.values()), default=1)
    with styled():
        figure, axes = grid(len(rows), 2, width=4.2, height=0.9 + 0.42 * most)
        for ax, (name, found) in zip(axes, rows.items(), strict=True):
            draw_correlations(ax, found)
            # The same range in all panels: r of 0.2 must not look like r of 0.9.
            ax.set(title=name, xlabel="Pearson r on held-out episodes", xlim=(min([-0.05, *ends]) - 0.03, 1.03))
        legend_below(figure, once(axes))
    return figure


def rows_of_r(target: dict[str, Any]) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """r and both ends of its interval, linear and MLP, by what was read: the embedding, then the controls."""
    rows = {"embedding": target}
    if "seen" in target["linear"]:
        rows["embedding, inside\nthe picture"] = {probe: target[probe]["seen"] for probe in PROBES}
    rows |= {name: scores for name, scores in target["controls"].items() if "linear" in scores}
    found = {}
    for name, scores in rows.items():
        values = [[scores[probe]["r"], *scores[probe]["r_ci95"]] for probe in PROBES]
        found[name] = tuple(np.array(values, dtype=float).T.tolist())  # None becomes NaN
    return found


def draw_correlations(ax: Axes, rows: dict[str, tuple[list[float], list[float], list[float]]]) -> None:
    """A point and a bar for each probe, the first row at the top."""
    for i, (r, low, high) in enumerate(reversed(rows.values())):
        for j, (label, colour) in enumerate(PROBES.values()):
            y = i + 0.14 - 0.28 * j
            ax.plot([low[j], high[j]], [y, y], color=colour, lw=1.4)
            ax.plot(r[j], y, "o", ms=5, color=colour, label=label)
    ax.set(yticks=range(len(rows)), ylim=(-0.5, len(rows) - 0.5))
    ax.set_yticklabels(list(rows)[::-1])
    ax.axvline(0, color=GREY, lw=0.8)


def open_loop(rows: list[dict[str, Any]]) -> Figure:
    """Latent error by horizon with bands, beside what costs nothing; the error's axis is logarithmic."""
    curves = (
        ("mse", "model", BLUE),
        ("copy_last_mse", "copy last", GREY),
        ("zero_action_mse", "actions zeroed", ORANGE),
        ("shuffled_action_mse", "actions of another window", PURPLE),
    )
    with styled():
        figure = new_figure(5.4, 3.3)
        ax = figure.subplots()
        h = [row["h"] for row in rows]
        for name, label, colour in curves:
            mean = np.array([row[name] for row in rows], dtype=float)
            low, high = np.array([row[f"{name}_ci95"] for row in rows], dtype=float).reshape(-1, 2).T
            ax.plot(h, mean, "o-", ms=3.5, color=colour, label=label, zorder=3 if name == "mse" else 2)
            # A logarithmic axis has no place for 0 or less, where an interval from few episodes may end.
            ax.fill_between(h, np.maximum(low, mean * 1e-2), high, color=colour, alpha=0.16, lw=0)
        if rows and all(row[name] > 0 for row in rows for name, _, _ in curves if row[name] is not None):
            ax.set_yscale("log")
        ax.set(title="Open-loop error", xlabel="horizon in blocks", ylabel="mean square over dimensions", xticks=h)
        ax.legend()
    return figure


def spectrum(latent: dict[str, Any], untrained: dict[str, Any] | None = None) -> Figure:
    """Eigenvalues of the embeddings' covariance, and of an untrained network's; SIGReg's aim is 1 for all."""
    with styled():
        figure = new_figure(5.4, 2.9)
        ax = figure.subplots()
        values = np.maximum(latent["spectrum"], 1e-8)
        ax.plot(np.arange(1, len(values) + 1), values, color=BLUE, label="trained")
        ax.axhline(1, color=GREY, lw=1, ls="--")
        title = f"Latent spectrum, effective rank {latent['effective_rank']:.1f} of {latent['dim']}"
        ax.set(title=title, xlabel="direction", ylabel="variance", yscale="log")
        if untrained:
            values, rank = np.maximum(untrained["spectrum"], 1e-8), untrained["effective_rank"]
            ax.plot(np.arange(1, len(values) + 1), values, color=ORANGE, label=f"untrained, effective rank {rank:.1f}")
            ax.legend()
    return figure


def training_curves(panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Lines over optimiser steps, one panel a theme: {title: {label: (steps, values)}}."""
    with styled():
        figure, axes = grid(len(panels), 2, width=3.9, height=2.5)
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            colours = (BLUE, ORANGE, GREEN, RED, PURPLE)
            for (label, (steps, values)), colour in zip(lines.items(), colours, strict=False):
                ax.plot(steps, values, color=colour, label=label, marker="o" if len(steps) < 20 else None, ms=3)
            ax.set(title=title, xlabel="optimiser step")
            ax.legend()
    return figure

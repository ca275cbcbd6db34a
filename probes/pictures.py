"""Pictures of what probes read: true against predicted, error over the plane, by horizon, by checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from lewm.probes.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PROBES,
    PURPLE,
    RED,
    SKY,
    grid,
    legend_below,
    once,
    proxy,
    styled,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, YELLOW = "#111827", "#F0E442"
COMPONENTS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, BLACK, YELLOW)
POINTS = 2000  # more of them only darken a panel
TAIL = 0.002  # of the points at each of four sides: 1 - 4 x 0.002 > 99 % stay in view
BINS = 14
CURVES = {  # of `horizon`: beginning of the keys, label, look
    "": ("imagined", {"color": BLUE, "zorder": 3}),
    "encoded_": ("from the real frame", {"color": GREEN, "ls": "--"}),
    "copy_last_": ("copy last", {"color": GREY}),
    "zero_action_": ("actions zeroed", {"color": ORANGE}),
    "shuffled_action_": ("actions of another window", {"color": PURPLE}),
}
BANDED = ("", "encoded_")  # curves with their interval: five bands would hide each other
BEST = {"marker": "*", "ms": 11, "mew": 0.8, "mec": BLACK, "ls": ""}
AS_GOOD = {"marker": "o", "ms": 7, "mfc": "none", "mew": 1.0, "mec": BLACK, "ls": ""}


@dataclass(frozen=True)
class Panel:
    """A quantity in physical units, and one probe's reading of it."""

    title: str
    unit: str
    components: list[str]
    true: Float[np.ndarray, "n c"]
    predicted: Float[np.ndarray, "n c"]
    r: float


@dataclass(frozen=True)
class PlaneErrors:
    """Errors of frames by position; `edges` are the position's values at the picture's left, right, top and bottom."""

    title: str
    unit: str
    position: Float[np.ndarray, "n 2"]
    error: Float[np.ndarray, " n"]
    edges: tuple[float, float, float, float] | None = None
    background: UInt8[np.ndarray, "h w 3"] | None = None


# True against predicted


def predicted_against_true(panels: list[Panel]) -> Figure:
    """Each frame as a point, true on x and predicted on y; a perfect probe's points lie on the dashed line."""
    with styled():
        figure, axes = grid(len(panels), 2, width=4.2, height=3.5)
        for ax, panel in zip(axes, panels, strict=True):
            draw_panel(ax, panel)
        legend_below(figure, [proxy("predicted = true", color=BLACK, lw=1, ls="--")])
    return figure


def draw_panel(ax: Axes, panel: Panel) -> None:
    """One quantity, its components in colours, and how many points lie out of view."""
    kept = strides(len(panel.true), POINTS)
    true, predicted = panel.true[kept], panel.predicted[kept]
    colours = [colour for _, colour in zip(panel.components, cycle(COMPONENTS), strict=False)]
    # Frame by frame, so that no component lies over all others.
    ax.scatter(true.ravel(), predicted.ravel(), s=4, alpha=0.4, c=colours * len(true), lw=0)
    low, high = limits(true, predicted)
    ax.plot([low, high], [low, high], color=BLACK, lw=1, ls="--")
    outside = int(((true < low) | (true > high) | (predicted < low) | (predicted > high)).sum())
    note = f"\n{outside} of {true.size} points out of view" if outside else ""
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=f"{panel.title}, r = {r_text(panel.r)}")
    ax.set(xlabel=with_unit("true", panel.unit) + note, ylabel=wrapped(with_unit("predicted", panel.unit)))
    if len(panel.components) > 1:
        look = {"marker": "o", "ms": 5, "ls": ""}
        handles = [proxy(name, color=c, **look) for name, c in zip(panel.components, colours, strict=True)]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))


def strides(n: int, most: int) -> Int[np.ndarray, " k"]:
    """At most `most` indices below n, at even strides."""
    k = min(n, most)
    return np.arange(k) * n // max(k, 1)


def limits(true: Float[np.ndarray, "k c"], predicted: Float[np.ndarray, "k c"]) -> tuple[float, float]:
    """One range for both axes; few outliers do not widen it, and at least 99 % of the points lie in it."""
    seen = [values[np.isfinite(values)] for values in (true, predicted)]
    seen = [values for values in seen if values.size]
    # "lower" and "higher": with few points nothing is left out.
    low = min((float(np.quantile(values, TAIL, method="lower")) for values in seen), default=0.0)
    high = max((float(np.quantile(values, 1 - TAIL, method="higher")) for values in seen), default=1.0)
    pad = 0.04 * (high - low) or 0.5
    return low - pad, high + pad


def r_text(r: float | None) -> str:
    """r to three digits, or as many as keep it from reading 1."""
    if r is None or np.isnan(r):
        return "undefined"
    texts = [f"{r:.{digits}f}" for digits in range(3, 8)]
    return texts[0] if abs(r) >= 1 else next((text for text in texts if abs(float(text)) < 1), texts[-1])


def with_unit(text: str, unit: str) -> str:
    """An axis' label."""
    return f"{text} ({unit})" if unit else text


# Error over the plane


def error_on_plane(maps: list[PlaneErrors]) -> Figure:
    """Mean error by true position, as the picture shows it where its edges are known; bins without frames are empty."""
    with styled():
        figure, axes = grid(len(maps), 2, width=4.2, height=3.4)
        for ax, errors in zip(axes, maps, strict=True):
            draw_map(ax, errors)
            if errors.edges is None:
                ax.set(title=errors.title, xlabel="component 0", ylabel="component 1")
            else:
                draw_picture(ax, errors.edges, errors.background)
                ax.set(title=errors.title, xlabel="true x in the picture", ylabel="true y in the picture")
        if any(errors.edges for errors in maps):
            legend_below(figure, [proxy("border of the picture", color=BLACK, lw=1.2)])
    return figure


def draw_map(ax: Axes, errors: PlaneErrors) -> None:
    """The binned means with their colour bar; colours start at an error of 0."""
    seen = np.isfinite(errors.position).all(axis=1) & np.isfinite(errors.error)
    position, error = errors.position[seen], errors.error[seen]
    left, right, top, bottom = errors.edges or (np.nan,) * 4
    x, y = bin_edges(position[:, 0], left, right), bin_edges(position[:, 1], top, bottom)
    mean = mean_by_bin(position, error, x, y)
    # A lone frame far off must not take all of the scale.
    highest = float(np.quantile(mean.compressed(), 0.98)) if mean.count() else 1.0
    beyond = "max" if mean.count() and mean.max() > highest else "neither"
    alpha = 1.0 if errors.background is None else 0.85
    mesh = ax.pcolormesh(x, y, mean, cmap="viridis", vmin=0, vmax=highest or 1.0, alpha=alpha, zorder=2)
    bar = ax.figure.colorbar(mesh, ax=ax, extend=beyond, label=wrapped(with_unit("mean error", errors.unit)))
    bar.outline.set_visible(False)  # type: ignore[operator]
    ax.grid(visible=errors.edges is None)


def bin_edges(values: Float[np.ndarray, " n"], *borders: float) -> Float[np.ndarray, " e"]:
    """Edges of even bins that hold all values and the picture's borders."""
    both = np.append(values, borders)
    both = both[np.isfinite(both)]
    low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
    return np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)


def mean_by_bin(
    position: Float[np.ndarray, "n 2"],
    error: Float[np.ndarray, " n"],
    x: Float[np.ndarray, " e"],
    y: Float[np.ndarray, " f"],
) -> np.ma.MaskedArray:
    """Mean error in each bin, (rows by y, columns by x), masked where there is no frame."""
    bins = {"x": position[:, 1], "y": position[:, 0], "bins": (y, x)}
    count = np.histogram2d(**bins)[0]
    total = np.histogram2d(**bins, weights=error)[0]
    return np.ma.masked_array(total / np.maximum(count, 1), mask=count == 0)


def draw_picture(ax: Axes, edges: tuple[float, float, float, float], background: np.ndarray | None) -> None:
    """The frame behind the map, its border, and axes turned as in the picture."""
    left, right, top, bottom = edges
    (x_low, x_high), (y_low, y_high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    aspect = 1.0
    if background is not None:
        grey = np.round(255 - 0.5 * (255 - background.mean(axis=2))).astype(np.uint8)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top), zorder=1)
        aspect = abs((right - left) / (bottom - top)) * background.shape[0] / background.shape[1]
    draw_border(ax, edges, color=BLACK, lw=1.2, zorder=4)
    x_pad, y_pad = 0.03 * (x_high - x_low), 0.03 * (y_high - y_low)
    ax.set(xlim=(x_low - x_pad, x_high + x_pad), ylim=(y_low - y_pad, y_high + y_pad), aspect=aspect)
    ax.xaxis.set_inverted(left > right)
    ax.yaxis.set_inverted(bottom > top)


def draw_border(ax: Axes, edges: tuple[float, float, float, float], **look: Any) -> None:
    """The picture's four sides."""
    left, right, top, bottom = edges
    ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], **look)


# By horizon


def horizon(quantities: dict[str, list[dict[str, Any]]], units: dict[str, str]) -> Figure:
    """What imagined embeddings tell, by horizon: r on the left, mean error on the right, one row a quantity."""
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure, axes = grid(2 * len(quantities), 2, width=4.2, height=2.5)
        panels = [(name, kind) for name in quantities for kind in ("r", "error")]
        for ax, (name, kind) in zip(axes, panels, strict=True):
            rows = quantities[name]
            for key, (label, look) in CURVES.items():
                look = {"label": label, "band": key in BANDED, **look}
                draw_curve(ax, [row["h"] for row in rows], rows, f"{key}{kind}", **look)
            ylabel = "Pearson r" if kind == "r" else with_unit("mean error", units.get(name, ""))
            ax.set(title=name, xlabel="horizon in blocks", ylabel=wrapped(ylabel))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            ax.margins(x=0.04 if len(rows) > 1 else 5)  # one horizon alone: some whole numbers around it
            if kind == "error":
                ax.set_ylim(bottom=0)
        legend_below(figure, once(axes))
    return figure


def draw_curve(
    ax: Axes, x: list[int], rows: list[dict[str, Any]], key: str, shade: float = 1.0, band: bool = True, **look: Any
) -> None:
    """`key` over x, with its interval where the rows have one; gaps where a value is None or missing."""
    mean = np.array([row.get(key) for row in rows], dtype=float)
    intervals = [row.get(f"{key}_ci95") or (None, None) for row in rows]
    low, high = np.array(intervals, dtype=float).reshape(-1, 2).T
    if not np.isfinite(mean).any():
        return
    colour = look["color"]
    ax.plot(x, mean, marker="o", ms=3.5, alpha=shade, **look)
    if not band:
        return
    ax.fill_between(x, low, high, color=colour, alpha=0.16 * shade, lw=0)
    # A band has no width at a point without neighbours; a bar shows its interval.
    lone = np.convolve(np.isfinite(mean), [1, 0, 1])[1:-1] == 0
    ax.vlines(np.array(x)[lone], low[lone], high[lone], color=colour, alpha=0.5 * shade, lw=1)


# By checkpoint


def quality_by_step(rows: list[dict[str, Any]]) -> Figure:
    """r of both probes by training step, one panel a quantity; the best checkpoint and those as good are marked."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    names = list(dict.fromkeys(name for row in rows for name in row["targets"]))
    runs = [[row for row in rows if row["run"] == run] for run in dict.fromkeys(row["run"] for row in rows)]
    with styled():
        figure, axes = grid(len(names), 2, width=4.2, height=2.7)
        for ax, name in zip(axes, names, strict=True):
            for run in runs:
                for probe, (_, colour) in PROBES.items():
                    draw_run(ax, run, name, probe, colour, shade=1.0 if len(runs) == 1 else 0.5)
            ax.set(title=name, xlabel="training step", ylabel="r, validation episodes")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        handles = [proxy(label, color=colour, marker="o", ms=3.5) for label, colour in PROBES.values()]
        handles.append(proxy("best checkpoint", **BEST, mfc="white"))
        if any(row.get("as_good") and not row.get("best") for row in rows):
            handles.append(proxy("as good as the best", **AS_GOOD))
        legend_below(figure, handles)
    return figure


def draw_run(ax: Axes, rows: list[dict[str, Any]], name: str, probe: str, colour: str, shade: float) -> None:
    """One probe's line over one run's checkpoints, a star at the best and rings at those as good."""
    rows = sorted(rows, key=lambda row: row["step"])
    read = [(row["targets"].get(name) or {}).get(probe) or {} for row in rows]
    draw_curve(ax, [row["step"] for row in rows], read, "r", shade, color=colour)
    for row, scores in zip(rows, read, strict=True):
        if scores.get("r") is None:
            continue
        if row.get("best"):
            ax.plot(row["step"], scores["r"], zorder=5, mfc=colour, **BEST)
        elif row.get("as_good"):
            ax.plot(row["step"], scores["r"], zorder=4, **AS_GOOD)

"""The evaluators' plots: matplotlib figures in one look, colours told apart by colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
KIND_COLOURS = {"unperturbed": GREY, "visual": ORANGE, "physical": BLUE}


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
    """A figure of `number` axes; places that are left over stay empty."""
    columns = min(columns, number)
    rows = -(-number // columns)
    figure = new_figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[number:]:
        spare.set_axis_off()
    return figure, list(axes[:number])


def scatter(panels: dict[str, tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"], dict[str, Any]]]) -> Figure:
    """True against predicted, standardised, one panel for each name: (true, predicted, scores)."""
    with styled():
        figure, axes = grid(len(panels), 2)
        for ax, (name, (true, predicted, scores)) in zip(axes, panels.items(), strict=True):
            kept = np.arange(min(len(true), 2000)) * len(true) // min(len(true), 2000)
            for c, colour in zip(range(true.shape[1]), (BLUE, ORANGE, GREEN, RED, PURPLE, SKY), strict=False):
                label = scores["per_component"][c]["name"]
                ax.scatter(true[kept, c], predicted[kept, c], s=3, alpha=0.35, color=colour, lw=0, label=label)
            low, high = float(true.min()), float(true.max())
            ax.plot([low, high], [low, high], color=GREY, lw=1, ls="--")
            ax.set(title=f"{name}, r = {scores['r']:.3f}", xlabel="true (standardised)", ylabel="predicted")
            ax.legend(markerscale=3, loc="upper left", title="component", title_fontsize=8)
    return figure


def correlations(targets: dict[str, Any]) -> Figure:
    """r of each probe with its interval, beside the controls, one panel a quantity."""
    with styled():
        figure, axes = grid(len(targets), 2, width=4.2, height=2.6)
        for ax, (name, target) in zip(axes, targets.items(), strict=True):
            rows = {"model": target, **{k: v for k, v in target["controls"].items() if "linear" in v}}
            for offset, probe, colour in ((0.14, "linear", BLUE), (-0.14, "mlp", ORANGE)):
                for i, row in enumerate(reversed(rows.values())):
                    low, high = row[probe]["r_ci95"]
                    ax.plot([low, high], [i + offset] * 2, color=colour, lw=1.4)
                    label = {"mlp": "MLP"}.get(probe, probe) if i == 0 else None
                    ax.plot(row[probe]["r"], i + offset, "o", ms=5, color=colour, label=label)
            ax.set(title=name, xlabel="Pearson r on held-out episodes", yticks=range(len(rows)))
            ax.set_yticklabels(list(rows)[::-1])
            ax.axvline(0, color=GREY, lw=0.8)
            ax.legend(loc="best")
    return figure


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
            low, high = np.array([row[f"{name}_ci95"] for row in rows], dtype=float).T
            ax.plot(h, mean, "o-", ms=3.5, color=colour, label=label, zorder=3 if name == "mse" else 2)
            # A logarithmic axis has no place for 0 or less, where an interval from few episodes may end.
            ax.fill_between(h, np.maximum(low, mean * 1e-2), high, color=colour, alpha=0.16, lw=0)
        if min(row[name] for row in rows for name, _, _ in curves) > 0:
            ax.set_yscale("log")
        ax.set(title="Open-loop error", xlabel="horizon in blocks", ylabel="mean square over dimensions", xticks=h)
        ax.legend()
    return figure


def spectrum(latent: dict[str, Any]) -> Figure:
    """Eigenvalues of the embeddings' covariance; SIGReg's aim is 1 for all."""
    with styled():
        figure = new_figure(5.4, 2.9)
        ax = figure.subplots()
        values = np.maximum(latent["spectrum"], 1e-8)
        ax.plot(np.arange(1, len(values) + 1), values, color=BLUE)
        ax.axhline(1, color=GREY, lw=1, ls="--")
        title = f"Latent spectrum, effective rank {latent['effective_rank']:.1f} of {latent['dim']}"
        ax.set(title=title, xlabel="direction", ylabel="variance", yscale="log")
    return figure


def surprise_curves(relative: Int[np.ndarray, " r"], curves: dict[str, Float[np.ndarray, "n r"]]) -> Figure:
    """Mean surprise around the event, a band of one standard error on each side, one curve for each kind."""
    with styled():
        figure = new_figure(5.6, 3.3)
        ax = figure.subplots()
        for kind, values in curves.items():
            count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
            mean = np.nansum(values, axis=0) / count
            error = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / count / count)
            colour = KIND_COLOURS[kind]
            ax.plot(relative, mean, color=colour, label=kind)
            ax.fill_between(relative, mean - error, mean + error, color=colour, alpha=0.18, lw=0)
        ax.axvline(0, color=RED, lw=1, ls=":")
        ax.set(title="Surprise around the event", xlabel="step from the event", ylabel="prediction error")
        ax.legend()
    return figure


def score_strips(scores: dict[str, dict[str, Float[np.ndarray, " n"]]], titles: dict[str, str]) -> Figure:
    """Every clip's score (its largest step) as a point, by kind; one panel a scorer."""
    rng = np.random.default_rng(0)
    with styled():
        figure, axes = grid(len(scores), 2, width=3.4, height=2.5)
        for ax, (scorer, by_kind) in zip(axes, scores.items(), strict=True):
            for i, (kind, values) in enumerate(by_kind.items()):
                x = i + rng.uniform(-0.18, 0.18, len(values))
                ax.scatter(x, values, s=9, alpha=0.6, color=KIND_COLOURS[kind], lw=0)
                ax.plot([i - 0.28, i + 0.28], [np.median(values)] * 2, color="#111827", lw=1.6)
            if min(values.min() for values in by_kind.values()) > 0:
                ax.set_yscale("log")
            ax.set(title=titles[scorer], xticks=range(len(by_kind)), ylabel="largest step")
            ax.set_xticklabels(list(by_kind))
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

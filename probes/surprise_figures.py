"""Which pictures a surprise result gets, and the data in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.violation import PLAIN, Clip, Nature
from lewm.probes.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    KIND_COLOURS,
    KIND_CYCLES,
    ORANGE,
    PURPLE,
    SKY,
    grid,
    kind_looks,
    legend_below,
    once,
    proxy,
    readable,
    styled,
)
from lewm.probes.statistics import auroc
from lewm.probes.surprise import Steps, depth_name, present
from lewm.probes.surprise_curves import FEW, curves
from lewm.probes.surprise_strips import NOTHING, WIDTH, Strip, clips_of, said, short, strips_figure
from lewm.probes.trials import Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORERS: dict[str, tuple[str, dict[str, Any]]] = {  # label and look, in the order of legends
    "model": ("model", {"color": BLUE, "lw": 2.4, "zorder": 3}),
    "calibrated": ("model, calibrated", {"color": GREEN, "ls": "--", "zorder": 4}),
    "fading": ("model, fading", {"color": SKY, "ls": (0, (5, 1))}),
    "untrained": ("untrained network", {"color": PURPLE, "ls": "-."}),
    "pixel_difference": ("pixel difference", {"color": ORANGE}),
    "copy_last": ("copy last", {"color": GREY, "ls": (0, (1, 1))}),
}
DASHED = {"ls": "--", "lw": 1.1, "mfc": "white"}  # calibrated


def surprise_figures(steps: Steps, trials: Trials) -> dict[str, Figure]:
    """All figures of one result, by file name."""
    from lewm.probes.sheet import contact_sheet

    return {
        "curves": curves(steps, trials),
        "roc": roc(steps),
        "scores": scores(steps),
        "extremes": extremes(steps, trials),
        "depths": depths(steps),
        "sheet": contact_sheet(trials),
    }


def of_nature(steps: Steps, nature: Nature) -> list[str]:
    """Kinds of a nature that happened."""
    return [kind for kind in present(steps) if steps.natures[kind] == nature]


def clip_scores(steps: Steps, scorer: str, kinds: Iterable[str]) -> Float[np.ndarray, " m"]:
    """Scores of the clips of some kinds: of each the largest step."""
    return np.concatenate([np.nanmax(steps.pairs(scorer, kind).disturbed, axis=1) for kind in kinds])


def plain_scores(steps: Steps, scorer: str, kinds: Iterable[str]) -> Float[np.ndarray, " m"]:
    """Scores of the undisturbed clips of trials that have any of these kinds, each once."""
    columns = [list(steps.natures).index(kind) for kind in kinds]
    has = (steps.event[:, columns] >= 0).any(axis=1)
    return np.nanmax(steps.by_scorer[scorer][has, 0], axis=1)


# ROC, scores, depths


def roc(steps: Steps) -> Figure:
    """ROC curves of all scorers: events against undisturbed clips, and physical events against visual ones."""
    by_nature = {nature: kinds for nature in KIND_CYCLES if (kinds := of_nature(steps, nature))}
    if not by_nature:
        return said(NOTHING)
    first = next(iter(by_nature))
    panels = {f"{first} against {PLAIN}": (plain_scores, by_nature[first])}
    if len(by_nature) == 2:
        panels["physical against visual"] = (clip_scores, by_nature["visual"])
    with styled():
        figure, axes = grid(len(panels), 2, width=WIDTH / 2, height=5.2)
        for ax, (title, (negative, others)) in zip(axes, panels.items(), strict=True):
            ax.plot([0, 1], [0, 1], color="#9CA3AF", lw=0.8)
            for name, (label, look) in SCORERS.items():
                if name in steps.by_scorer:
                    scored = clip_scores(steps, name, by_nature[first]), negative(steps, name, others)
                    ax.plot(*roc_points(*scored), label=f"{label}: {auroc(*scored):.3f}", **look)
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title)
            ax.set(xlabel="false positive rate", ylabel="true positive rate")
            place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.14)}
            ax.legend(title="AUROC", alignment="left", handlelength=2.8, **place)
    return figure


def roc_points(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """False and true positive rates as the threshold falls over all scores; ties make slopes."""
    from sklearn.metrics import roc_curve

    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    false, true, _ = roc_curve(labels, np.concatenate([positive, negative]), drop_intermediate=False)
    return false, true


def scores(steps: Steps) -> Figure:
    """Every clip's score (its largest step) as a point, by kind, the median as a bar; one panel a scorer."""
    rng = np.random.default_rng(0)
    kinds, names = present(steps), [name for name in SCORERS if name in steps.by_scorer]
    columns = 2 if len(names) == 4 else 3
    with styled():
        figure, axes = grid(len(names), columns, width=WIDTH / columns, height=0.8 + 0.22 * (1 + len(kinds)))
        for i, (ax, scorer) in enumerate(zip(axes, names, strict=True)):
            rows = {PLAIN: np.nanmax(steps.by_scorer[scorer][:, 0], axis=1)}
            rows |= {kind: clip_scores(steps, scorer, [kind]) for kind in kinds}
            for y, (kind, values) in enumerate(rows.items()):
                colour = KIND_COLOURS[steps.natures.get(kind, PLAIN)]
                ax.scatter(values, y + rng.uniform(-0.25, 0.25, len(values)), s=7, alpha=0.5, color=colour, lw=0)
                ax.plot([np.median(values)] * 2, [y - 0.36, y + 0.36], color=BLACK, lw=1.8)
            low, high = (end(list(map(end, rows.values()))) for end in (np.min, np.max))
            if low > 0 and high > 10 * low:
                ax.set_xscale("log")
                readable(ax.xaxis)
            else:
                ax.locator_params(axis="x", nbins=5)
            ax.set(title=SCORERS[scorer][0], ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
            ax.set_yticklabels(list(rows) if i % columns == 0 else [])
            ax.set(xlabel="largest step" if i // columns == (len(names) - 1) // columns else "")
        looks_of = {label: KIND_COLOURS[label] for label in dict.fromkeys([PLAIN, *(steps.natures[k] for k in kinds)])}
        handles = [proxy(label, color=colour, marker="o", ms=4, ls="") for label, colour in looks_of.items()]
        legend_below(figure, [*handles, proxy("median", color=BLACK, marker="|", ms=9, mew=1.8, ls="")])
    return figure


def depths(steps: Steps) -> Figure:
    """AUROC of each kind against undisturbed clips by rollout depth, one panel a nature; calibrated ones dashed.

    Of many kinds the calibrated ones have panels of their own, below.
    """
    by_nature = {nature: kinds for nature in KIND_CYCLES if (kinds := of_nature(steps, nature))}
    if not by_nature:
        return said(NOTHING)
    forms = [form for form in ("model", "calibrated") if form in steps.by_scorer]
    most = max(len(kinds) for kinds in by_nature.values())
    rows = [[form] for form in forms] if most > FEW else [forms]
    with styled():
        number = len(rows) * len(by_nature)
        figure, axes = grid(number, len(by_nature), width=WIDTH / 2, height=2.9 + 0.12 * most / len(rows))
        panels = [(forms, nature) for forms in rows for nature in by_nature]
        for i, (ax, (shown, nature)) in enumerate(zip(axes, panels, strict=True)):
            draw_depths(ax, steps, by_nature[nature], shown)
            prefix = f"{SCORERS[shown[0]][0]}: " if len(rows) > 1 else ""
            ax.set_title(f"{prefix}{nature} against {PLAIN}", fontsize=9)
            if i + len(by_nature) >= number:
                ax.set_xlabel("rollout depth in blocks")
                handles = [handle for handle in once([ax]) if handle.get_label() in by_nature[nature]]
                if len(shown) > 1:
                    handles.append(proxy("calibrated", color=GREY, marker="o", ms=4.5, **DASHED))
                place = {"loc": "upper left", "bbox_to_anchor": (-0.1, -0.2)}
                ax.legend(handles=handles, ncols=2, handlelength=2.6, **place)
            ax.sharey(axes[0])
        axes[0].set_ylim(min(0.45, axes[0].get_ylim()[0]), 1.03)
    return figure


def draw_depths(ax: Axes, steps: Steps, kinds: list[str], forms: list[str]) -> None:
    """AUROC by depth, a line for each kind and form."""
    most = 1
    while depth_name("model", most + 1) in steps.by_scorer:
        most += 1
    chosen = kind_looks(steps.natures)
    for form in forms:
        n = [depth for depth in range(1, most + 1) if depth_name(form, depth) in steps.by_scorer]
        for kind in kinds:
            values = [auroc_at(steps, depth_name(form, depth), kind) for depth in n]
            dashed = DASHED if form == "calibrated" else {}
            ax.plot(n, values, ms=4.5, label=kind, **chosen[kind], **dashed)
    ax.axhline(0.5, color=GREY, lw=0.8)
    ax.set(xticks=range(1, most + 1), ylabel="AUROC")
    ax.margins(x=0.08 if most > 1 else 5)


def auroc_at(steps: Steps, scorer: str, kind: str) -> float:
    """AUROC of one kind by one score."""
    pairs = steps.pairs(scorer, kind)
    return auroc(np.nanmax(pairs.disturbed, axis=1), np.nanmax(pairs.plain, axis=1))


# Extremes


def extremes(steps: Steps, trials: Trials, each: int = 2) -> Figure:
    """The most and the least surprising clips with physical events, and the most surprising undisturbed ones."""
    nature = "physical" if of_nature(steps, "physical") else "visual"
    score = np.max(np.nan_to_num(steps.by_scorer["model"], nan=-np.inf), axis=2)
    columns = {kind: list(steps.natures).index(kind) for kind in of_nature(steps, nature)}
    at = [(int(number), kind) for kind, c in columns.items() for number in np.flatnonzero(steps.event[:, c] >= 0)]
    ranked = sorted(at, key=lambda key: -score[key[0], 1 + columns[key[1]]])
    plain = (-score[:, 0]).argsort(kind="stable")
    chosen = {key: f"highest {nature}" for key in ranked[:each]}
    chosen |= {key: f"lowest {nature}" for key in ranked[each:][-each:]}
    chosen |= {(int(number), PLAIN): f"highest {PLAIN}" for number in plain[:each]}
    clips = clips_of(trials, chosen)
    return strips_figure([strip_of(steps, clips[key], key, words) for key, words in chosen.items()])


def strip_of(steps: Steps, clip: Clip, key: tuple[int, str], words: str) -> Strip:
    """A clip with what is said about it."""
    number, kind = key
    column = 0 if kind == PLAIN else 1 + list(steps.natures).index(kind)
    surprise = steps.by_scorer["model"][number, column]
    event = None if kind == PLAIN else int(steps.event[number, column - 1])
    what = "" if kind in words else f"{kind}, "
    title = f"{words}: {what}clip {number + 1}, score {short(float(np.nanmax(surprise)))}"
    return Strip(title, KIND_COLOURS[steps.natures.get(kind, PLAIN)], clip, surprise, event)

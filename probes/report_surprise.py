"""The part of a report that a surprise result fills: kinds of events, baselines, rollout depths, false alarms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lewm.probes import html
from lewm.probes.surprise_tables import (
    KIND_HEADER,
    SCORERS,
    auroc_text,
    depth_rows,
    depths_of,
    false_alarms,
    few_depths,
    kind_cells,
    kinds_of,
    natures_of,
    scorer_cells,
    scorers_of,
)

Result = dict[str, Any]
Rows = list[str | list[str]]
ABOUT = (
    "Every clip is shown as it happened (unperturbed) and again with an event in it: physical (against the dynamics) "
    "or visual (possible, only new to look at). Surprise is the mean squared error of the predicted embedding at each "
    "step, and a clip's score is its largest step. AUROC is the chance that a clip with the event scores higher than "
    "one without (0.5: chance)."
)
COLUMNS = (
    "excluded: clips in which nothing would have happened",
    "d_z: mean of the paired differences over their standard deviation, episodes as pairs",
    "p Holm: paired t-test, corrected for the number of kinds",
    "localised: share of clips whose largest step is the event's",
    "clips needed: fewest pairs that show such a d_z at p < 0.01 in 90 % of samples",
)
ROWS = {
    "calibrated": "calibrated: the model's error over that of ordinary steps with similar actions and predicted motion",
    "untrained": "untrained: the same network before any training",
    "pixel_difference": "pixel difference: mean squared change from frame to frame, no model at all",
    "copy_last": "copy last: the surprise of a model that expects no motion",
}
PICTURES = {
    "curves": "Mean surprise around the event, bands of one standard error; where there are frames, each is the one "
    "that the step above it leads to.",
    "roc": "ROC curves: how many events are found at each rate of false positives.",
    "scores": "Each point is a clip's score, by kind of event and scorer; bars are medians.",
    "extremes": "The clips that surprise the model most and least, and the unperturbed ones that surprise it most "
    "(false alarms). The event's frame has a border; the number below a frame is the surprise at the step that leads "
    "to it, and bars have a scale for each clip.",
    "sheet": "What the events look like: frames from two before the first wrong one (border) to three after it.",
}
DEPTHS = (
    "Surprise at rollout depth n compares a frame with its prediction n blocks of actions ahead. A kind that grows "
    "with depth is one that a single step hides."
)
DEPTHS_PICTURE = "AUROC against unperturbed clips, by rollout depth and kind."
VERSUS = "AUROC of each physical kind (rows) against each visual one (columns), by the model's score."
PAINT = "physical against visual events"
WHOLE = "the whole interval of its AUROC is above"


def parts(result: Result, folder: Path) -> list[str]:
    """Everything between a section's head and its end."""
    about = f"{result['n']} clips, {result['clips']}."
    return [
        html.paragraph(ABOUT),
        html.paragraph(about, soft=True),
        *map(html.paragraph, against_pixels(result)),
        picture(result, folder, "curves"),
        kind_table(result),
        html.items(COLUMNS),
        scorers(result, folder),
        versus(result),
        depths(result, folder),
        alarms(result),
        *clips(result, folder),
    ]


def picture(result: Result, folder: Path, name: str, caption: str | None = None) -> str:
    """A figure, where it is this result's own; older results do not say, and then it is."""
    own = name in result.get("figures", (name,))
    return html.figure(folder / f"{name}.png", caption or PICTURES[name]) if own else ""


def against_pixels(result: Result) -> Iterator[str]:
    """Where the world model does better than the pixel difference, and where it does not."""
    pixel = result["baselines"].get("pixel_difference")
    forms = {"The world model": result, "Calibrated, it": result.get("calibrated")}
    for name, scores in forms.items():
        if not scores or not pixel:
            continue
        better, other = compared(scores, pixel)
        if better:
            yield f"{name} does better than the pixel difference ({WHOLE}) at {', '.join(better)}."
        if other:
            yield f"{name} does no better than the pixel difference at {', '.join(other)}."


def compared(scores: Result, pixel: Result) -> tuple[list[str], list[str]]:
    """Where the whole interval of an AUROC is above the other's AUROC, and where not; with the numbers."""
    pairs = {kind: (scores["kinds"][kind], pixel["kinds"][kind]) for kind in kinds_of(scores, "physical")}
    if scores.get("physical_vs_visual"):
        pairs[PAINT] = (scores["physical_vs_visual"], pixel["physical_vs_visual"])
    better, other = [], []
    for name, (own, its) in pairs.items():
        low = (own.get("auroc_ci95") or [None])[0]
        found = better if low is not None and its["auroc"] is not None and low > its["auroc"] else other
        found.append(f"{name} ({auroc_text(own, 2)} against {auroc_text(its, 2, False)})")
    return better, other


def sections(result: Result, rows: dict[str, list[str]]) -> Rows:
    """Rows of kinds, each nature under a heading."""
    natures, found = natures_of(result), []
    for nature in dict.fromkeys(natures[kind] for kind in rows):
        found.append(f"{nature} events")
        found += [[kind, *cells] for kind, cells in rows.items() if natures[kind] == nature]
    return found


def kind_table(result: Result) -> str:
    """One row a kind."""
    rows = {kind: kind_cells(result, kind)[1:] for kind in result["kinds"]}
    return html.table(("", *KIND_HEADER[1:]), sections(result, rows))


def scorers(result: Result, folder: Path) -> str:
    """The model beside its baselines, by kind, and physical against visual events."""
    found = scorers_of(result)
    rows = sections(result, {k: scorer_cells(result, k, True, 2) for k, s in result["kinds"].items() if s["n"]})
    if result.get("physical_vs_visual"):
        pooled = [auroc_text(scores.get("physical_vs_visual"), 2) for scores in found.values()]
        rows += [PAINT, ["kinds pooled", *pooled]]
    return html.subsection(
        "Beside the baselines",
        picture(result, folder, "roc"),
        html.table(("AUROC [95 %]", *(SCORERS[name] for name in found)), rows),
        html.items(f"{ROWS[name]}" for name in found if name in ROWS),
        picture(result, folder, "scores"),
    )


def versus(result: Result) -> str:
    """Each physical kind against each visual one, where there is more than one pair."""
    found = result.get("versus") or {}
    visual = list(next(iter(found.values()), {}))
    if len(found) * len(visual) < 2:
        return ""
    rows = [[kind, *(auroc_text(row[name]) for name in visual)] for kind, row in found.items()]
    return html.subsection(
        "Physical against visual", html.paragraph(VERSUS, soft=True), html.table(("", *visual), rows)
    )


def depths(result: Result, folder: Path) -> str:
    """AUROC by rollout depth; nothing for results that have one depth alone."""
    tables = []
    for form, found in depths_of(result).items():
        header = (f"{SCORERS[form]}, AUROC at depth", *map(str, few_depths(found)))
        tables.append(html.table(header, sections(result, depth_rows(result, found))))
    if not tables:
        return ""
    drawn = picture(result, folder, "depths", DEPTHS_PICTURE)
    return html.subsection("By rollout depth", html.paragraph(DEPTHS), drawn, *tables)


def alarms(result: Result) -> str:
    """How often ordinary steps raise an alarm; nothing for results that know of no calibration."""
    if not (result.get("alarms") or result.get("not_calibrated")):
        return ""
    about = result.get("reference")
    ordinary = (
        f"Ordinary steps are {about['steps']} of {about['episodes']} episodes, {about['path']}, split {about['split']}."
        if about
        else ""
    )
    soft = html.paragraph(ordinary, soft=True) if ordinary else ""
    return html.subsection("False alarms", html.paragraph(false_alarms(result)), soft)


def clips(result: Result, folder: Path) -> Iterator[str]:
    """Pictures of single clips."""
    drawn = [picture(result, folder, name) for name in ("extremes", "sheet")]
    if any(drawn):
        yield html.subsection("Clips", *drawn)

"""The parts of a report that a probing result fills: quantities, imagined states, checkpoints, open-loop error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lewm.probes import html
from lewm.probes.tables import (
    HORIZONS,
    PATHS,
    PIXELS,
    UNRELIABLE,
    correlation,
    number,
    r_with_interval,
    rows_of,
    three_figures,
    with_interval,
)

SCORES = (
    "A probe is a small model that is fitted to tell a quantity from the frozen embeddings of training episodes: a "
    "linear map, and an MLP. r is the correlation of probed and true values (1 is perfect), MSE is standardised "
    "(always saying the mean costs about 1), and error is the mean distance from the truth."
)
ROWS = {  # of the table: what is read there
    "embedding, inside the picture": "the same probe, in those frames in which the thing is inside the picture",
    "cls": "the encoder's output, before the projector that makes the embedding of it",
    "untrained": "the same network before any training",
    "pixels": PIXELS.removeprefix("pixels: "),
    "shuffled": "the embedding, with the values of other episodes: what chance gives",
    "constant": "the mean of the training frames, whatever the frame",
}
PICTURES = {
    "correlations": "How well each quantity is read: r with its 95 % interval, from the model's embedding at the top "
    "and from the controls below it.",
    "scatter": "Each point is a test frame: the true value across, the probed value up; a perfect probe's points lie "
    "on the dashed line.",
    "error_map": "Where the linear probe errs: its mean error by the thing's true place; where there is no colour, "
    "there was no test frame.",
    "poses": "Test frames with the true place (ring) and the place that the MLP reads from the embedding (cross); a "
    "line from either is the direction, true or read.",
    "spectrum": "How many directions the embeddings use: their variance along each, largest first; the dashed line "
    "is what SIGReg aims at.",
}
IMAGINED = (
    "From a few real frames the model imagines the embeddings of the next blocks of actions, and the linear probe of "
    "real embeddings reads them: if the model moves things as the world does, the error stays near that of the real "
    "frame, and far below that of copying the last frame or of wrong actions."
)
OTHERS = (
    "The last four columns are error (r) of what else can be read: the real frame of that time, the last real frame "
    "before, and what is imagined with no actions and with those of another window (shuffled)."
)
HORIZON = (
    "r (left, higher is better) and mean error (right, lower is better) of what is read, by blocks of actions ahead; "
    "bands are 95 % intervals."
)
CHECKPOINTS = (
    "Every checkpoint was probed on validation episodes. The best has the smallest standardised error of the linear "
    "probes there; one is as good where its paired difference from the best may be 0 (95 %)."
)
QUALITY = "r of each quantity on validation episodes, by training step; the star is the best checkpoint."


def quantities(result: dict[str, Any], folder: Path) -> list[str]:
    """What can be read from a frame's embedding, beside the controls; then from imagined ones, and by checkpoint."""
    result = completed(result)
    about = (
        f"{result['n_test']} frames of {result['episodes_test']} episodes, split {result['split']}: {result['how']}."
    )
    return [
        html.paragraph(SCORES),
        html.paragraph(about, soft=True),
        *warnings(result),
        quantity_table(result),
        html.items(meanings(result)),
        *(html.figure(folder / f"{name}.png", caption) for name, caption in PICTURES.items() if drawn(result, name)),
        imagined(result, folder),
        checkpoints(result, folder),
    ]


def drawn(result: dict[str, Any], name: str) -> bool:
    """Whether a picture is this result's own; older results do not say, and then it is."""
    return name in result.get("figures", (name,))


def warnings(result: dict[str, Any]) -> Iterator[str]:
    """Which intervals are not reliable, where any are not."""
    names = []
    for name, target in result["targets"].items():
        seen = target["linear"].get("seen", {})
        if not target["linear"].get("ci_reliable", True):
            names.append(name)
        elif not seen.get("ci_reliable", True):
            names.append(f"{name} inside the picture")
    if names:
        yield html.warning(f"{', '.join(names)}: {UNRELIABLE}.")


def quantity_table(result: dict[str, Any]) -> str:
    """r, MSE and error of both probes, a group of rows for each quantity."""
    rows: list[str | list[str]] = []
    for name in result["targets"]:
        rows.append(heading(result, name))
        rows += [[features, *cells] for features, cells in rows_of(result, name)]
    return html.table(("", "linear r [95 %]", "MSE", "error", "MLP r [95 %]", "MSE", "error"), rows)


def completed(scores: Any) -> Any:
    """Scores of older versions lack errors in physical units: None in their place, which a table shows as a dash."""
    if not isinstance(scores, dict):
        return scores
    found = {name: completed(value) for name, value in scores.items()}
    return {"error": None} | found if "r_ci95" in found else found


def heading(result: dict[str, Any], name: str) -> str:
    """A quantity, the unit of its error, and how many frames a probe of it sees."""
    target = result["targets"].get(name, {})
    unit, num = target.get("error_unit"), target.get("num_frames", 1)
    parts = [name, f"error in {unit}" if unit else "", f"read from {num} frames" if num > 1 else ""]
    return ", ".join(part for part in parts if part)


def meanings(result: dict[str, Any]) -> Iterator[str]:
    """What the rows of the table are, and which frames were left out."""
    shown = {features for name in result["targets"] for features, _ in rows_of(result, name)}
    yield from (f"{row}: {meaning}." for row, meaning in ROWS.items() if row in shown)
    for name, target in result["targets"].items():
        if seen := target["linear"].get("seen"):
            yield f"{name} is inside the picture in {100 * seen['share']:.0f} % of the frames ({seen['n']})."
        dropped = {part: n for part, n in (target.get("dropped") or {}).items() if n}
        if dropped:
            counts = ", ".join(f"{n} of {part}" for part, n in dropped.items())
            yield f"{name} is not known in some frames, which were left out: {counts}."


def imagined(result: dict[str, Any], folder: Path) -> str:
    """Quantities read out of imagined embeddings, by horizon, beside those of real and of copied ones."""
    rows: list[str | list[str]] = []
    for name, ahead in (result.get("horizon") or {}).items():
        kept = [row for i, row in enumerate(ahead) if row["h"] in HORIZONS or i == len(ahead) - 1]
        kept = [row for row in kept if row["r"] is not None]
        if kept:
            rows += [heading(result, name), *(horizon_cells(row) for row in kept)]
    if not rows:
        return ""
    header = ("blocks ahead", "imagined, r [95 %]", "error", *PATHS.values())
    picture = html.figure(folder / "horizon.png", HORIZON)
    about = html.paragraph(OTHERS, soft=True)
    return html.subsection("From imagined states", html.paragraph(IMAGINED), picture, about, html.table(header, rows))


def horizon_cells(row: dict[str, Any]) -> list[str]:
    """One horizon of one quantity."""
    others = [(row.get(f"{path}_error"), row.get(f"{path}_r")) for path in PATHS]
    cells = ["–" if r is None else f"{three_figures(error)} ({correlation(r)})" for error, r in others]
    return [str(row["h"]), r_with_interval(row), three_figures(row.get("error")), *cells]


def checkpoints(result: dict[str, Any], folder: Path) -> str:
    """Each checkpoint on validation episodes, where several were given."""
    found = result.get("checkpoints")
    if not found:
        return ""
    several = len({row.get("run") for row in found}) > 1
    header = (
        "checkpoint",
        "step",
        "",
        "standardised error",
        *(f"{name}, linear r [95 %]" for name in found[0]["targets"]),
    )
    others = f"All other numbers of this evaluation are of the best, on split {result['split']}"
    seen = result["split"] in ("val", "all")
    others += (
        ": the choice has seen these episodes, which flatters them." if seen else ", which the choice has not seen."
    )
    return html.subsection(
        "Checkpoints",
        html.paragraph(f"{CHECKPOINTS} {others}"),
        html.figure(folder / "checkpoints.png", QUALITY),
        html.table(header, [checkpoint_cells(row, several) for row in found]),
    )


def checkpoint_cells(row: dict[str, Any], several: bool) -> list[str]:
    """One checkpoint, with its run's name where there are several runs."""
    path = Path(str(row["path"])).name
    path = f"{Path(row['run']).name}, {path}" if several and row.get("run") else path
    step = "–" if row["step"] is None else str(row["step"])
    word = "best" if row["best"] else "as good" if row["as_good"] else ""
    read = [r_with_interval(target["linear"]) for target in row["targets"].values()]
    return [path, step, word, number(row.get("val_error")), *read]


def open_loop(result: dict[str, Any], folder: Path) -> list[str]:
    """Error of imagined embeddings by horizon, beside its baselines."""
    if not result["open_loop"]:
        return [html.paragraph(str(result.get("open_loop_note")))]
    names = ("copy_last", "zero_action", "shuffled_action")
    rows = [
        (row["h"], with_interval(row["mse"], row["mse_ci95"]), *(number(row[f"{name}_mse"]) for name in names))
        for row in result["open_loop"]
    ]
    first = result["open_loop"][0]
    about = f"{first['n']} windows of {first['episodes']} episodes, split {result['split']}; {first['ci_method']}."
    header = ("blocks ahead", "error [95 %]", "copy last", "zeroed actions", "actions of another window")
    caption = (
        "How far imagined embeddings are from those of the real frames, by blocks of actions ahead: a useful model "
        "is far below copying the last embedding and below wrong actions."
    )
    picture = html.figure(folder / "open_loop.png", caption)
    return [html.paragraph(about, soft=True), picture, html.table(header, rows)]

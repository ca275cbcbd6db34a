"""The tables an evaluator prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PIXELS = "pixels: principal components of pixels, as many numbers as the embedding has"
UNRELIABLE = "fewer than 20 episodes: these intervals are not reliable; with --split all every episode is measured"
FOREIGN = "this is not the data the model was trained on: whether it has seen some of these episodes cannot be told"
WIDTH = 144  # of tables that go to no terminal
HORIZONS = (1, 2, 4, 8)  # blocks ahead in tables, and the farthest
PATHS = {
    "encoded": "real frame",
    "copy_last": "copy last",
    "zero_action": "zeroed actions",
    "shuffled_action": "shuffled actions",
}


def number(value: float | None, digits: int = 3) -> str:
    """A number for people, or a dash."""
    if value is None:
        return "–"
    return f"{value:.1e}" if value != 0 and abs(value) < 10**-digits else f"{value:.{digits}f}"


def correlation(value: float | None) -> str:
    """An r with as many digits as it takes not to read as 1."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 0.9985 else f"{value:.4f}"


def with_interval(value: float | None, bounds: list[float | None], digits: int = 3) -> str:
    """0.974 [0.970, 0.978]."""
    if value is None:
        return "–"
    return f"{number(value, digits)} [{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def r_with_interval(scores: dict[str, Any]) -> str:
    """r and its interval, with digits that tell it from 1."""
    if scores["r"] is None:
        return "–"
    low, high = scores["r_ci95"]
    return f"{correlation(scores['r'])} [{correlation(low)}, {correlation(high)}]"


def three_figures(value: float | None) -> str:
    """A number in units of the world, to three figures."""
    if value is None:
        return "–"
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:,.0f}"


def print_probe(result: dict[str, Any]) -> None:
    """Every quantity, model and controls; then what is read from imagined embeddings, and open-loop error."""
    from rich.table import Table

    console = make_console()
    if "checkpoints" in result:
        print_checkpoints(result["checkpoints"], console)
    title = f"Probes, {result['episodes_test']} episodes, {result['n_test']} frames, split {result['split']}"
    header = ("quantity", "features", "linear r [95 %]", "MSE", "error", "MLP r [95 %]", "MSE", "error")
    table = Table(*header, title=title, caption=PIXELS)
    for name, target in result["targets"].items():
        rows = list(rows_of(result, name))
        for i, (features, cells) in enumerate(rows):
            words = {0: name, 1: f"error in {target['error_unit']}"}
            table.add_row(words.get(i, ""), features, *cells, end_section=i == len(rows) - 1)
    console.print(table)
    if not result["trained_on_this_data"]:
        console.print(FOREIGN)
    mark_unreliable(console, [target["linear"] for target in result["targets"].values()])
    mark_unreliable(console, [target["linear"].get("seen", {}) for target in result["targets"].values()], "inside: ")
    if result["open_loop"]:
        print_horizon(result, console)
        print_open_loop(result["open_loop"], console)


def mark_unreliable(console: Any, scores: list[dict[str, Any]], what: str = "") -> None:
    """Say so where any of these intervals is of too few episodes."""
    if not all(s.get("ci_reliable", True) in (True, None) for s in scores):
        console.print(f"{what}{UNRELIABLE}")


def make_console() -> Any:
    """Where tables go; a file takes wide ones."""
    from rich.console import Console

    console = Console(markup=False)  # names are the user's
    return console if console.is_terminal else Console(width=WIDTH, markup=False)


def rows_of(result: dict[str, Any], name: str) -> Iterator[tuple[str, list[str]]]:
    """Features of every kind, and r, MSE and error of both probes of one quantity, for a table."""
    target = result["targets"][name]
    rows = {"embedding": target}
    if "seen" in target["linear"]:
        rows["embedding, inside the picture"] = {probe: target[probe]["seen"] for probe in ("linear", "mlp")}
    rows |= {layer: found["targets"][name] for layer, found in result["layers"].items()}
    rows |= {control: scores for control, scores in target["controls"].items() if "linear" in scores}
    for features, scores in rows.items():
        yield features, [cell for probe in ("linear", "mlp") for cell in cells_of(scores[probe])]
    constant = target["controls"]["constant"]
    yield "constant", [*cells_of(constant), "", "", ""]


def cells_of(scores: dict[str, Any]) -> list[str]:
    """r with its interval, MSE, error."""
    return [r_with_interval(scores), number(scores["mse"]), three_figures(scores["error"])]


def print_checkpoints(rows: list[dict[str, Any]], console: Any) -> None:
    """Each checkpoint on validation episodes, and which is the best."""
    from rich.table import Table

    names = list(rows[0]["targets"])
    table = Table("checkpoint", "step", *(f"{name}, r" for name in names), "", title="Checkpoints, split val, linear")
    for row in rows:
        word = "best" if row["best"] else "as good" if row["as_good"] else ""
        read = (r_with_interval(row["targets"][name]["linear"]) for name in names)
        table.add_row(str(row["path"]), str(row["step"]), *read, word)
    console.print(table)
    mark_unreliable(console, [row["targets"][name]["linear"] for row in rows for name in names])


def print_horizon(result: dict[str, Any], console: Any) -> None:
    """r and error of every quantity, read from imagined embeddings, at a few horizons."""
    from rich.table import Table

    header = ("quantity", "blocks", "imagined r [95 %]", "error", *(f"{name}, error" for name in PATHS.values()))
    table = Table(*header, title="Read from imagined embeddings, linear")
    for name, rows in result["horizon"].items():
        kept = [row for row in rows if row["h"] in (*HORIZONS, len(rows))]
        for i, row in enumerate(kept):
            others = (three_figures(row[f"{path}_error"]) for path in PATHS)
            cells = (str(row["h"]), r_with_interval(row), three_figures(row["error"]), *others)
            unit = f"error in {result['targets'][name]['error_unit']}"
            table.add_row({0: name, 1: unit}.get(i, ""), *cells, end_section=i == len(kept) - 1)
    console.print(table)
    mark_unreliable(console, [row for rows in result["horizon"].values() for row in rows])


def print_open_loop(rows: list[dict[str, Any]], console: Any) -> None:
    """Error by horizon, beside its baselines."""
    from rich.table import Table

    title = f"Open-loop error, {rows[0]['n']} windows of {rows[0]['episodes']} episodes"
    table = Table("blocks", "model [95 %]", "copy last", "zeroed actions", "shuffled actions", title=title)
    for row in rows:
        others = (number(row[f"{name}_mse"]) for name in ("copy_last", "zero_action", "shuffled_action"))
        table.add_row(str(row["h"]), with_interval(row["mse"], row["mse_ci95"]), *others)
    console.print(table)

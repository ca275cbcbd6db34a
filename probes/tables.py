"""The tables an evaluator prints."""

from __future__ import annotations

from typing import Any

PIXELS = "pixels: principal components of pixels, as many numbers as the embedding has"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people, or a dash."""
    if value is None:
        return "–"
    return f"{value:.1e}" if value != 0 and abs(value) < 10**-digits else f"{value:.{digits}f}"


def with_interval(value: float | None, bounds: list[float | None], digits: int = 3) -> str:
    """0.974 [0.970, 0.978]."""
    if value is None:
        return "–"
    return f"{number(value, digits)} [{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def print_probe(result: dict[str, Any]) -> None:
    """Every quantity, model and controls; then open-loop error."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = (
        f"Probes, {result['parts']['test']['episodes']} episodes, {result['n_test']} frames, split {result['split']}"
    )
    header = ("quantity", "features", "linear MSE", "linear r [95 %]", "MLP MSE", "MLP r [95 %]")
    table = Table(*header, title=title, caption=PIXELS)
    for name, target in result["targets"].items():
        rows = {"embedding": target}
        rows |= {layer: found["targets"][name] for layer, found in result["layers"].items()}
        rows |= {control: scores for control, scores in target["controls"].items() if "linear" in scores}
        for i, (features, scores) in enumerate(rows.items()):
            cells = [
                cell
                for probe in ("linear", "mlp")
                for cell in (number(scores[probe]["mse"]), with_interval(scores[probe]["r"], scores[probe]["r_ci95"]))
            ]
            table.add_row(name if i == 0 else "", features, *cells, end_section=i == len(rows) - 1)
    console.print(table)
    if result["open_loop"]:
        print_open_loop(result["open_loop"], console)


def print_open_loop(rows: list[dict[str, Any]], console: Any) -> None:
    """Error by horizon, beside its baselines."""
    from rich.table import Table

    title = f"Open-loop error, {rows[0]['n']} windows of {rows[0]['episodes']} episodes"
    table = Table("blocks", "model [95 %]", "copy last", "zeroed actions", "shuffled actions", title=title)
    for row in rows:
        others = (number(row[f"{name}_mse"]) for name in ("copy_last", "zero_action", "shuffled_action"))
        table.add_row(str(row["h"]), with_interval(row["mse"], row["mse_ci95"]), *others)
    console.print(table)


def print_surprise(result: dict[str, Any]) -> None:
    """AUROCs of the model and its baselines, and where the largest step is."""
    from rich.console import Console
    from rich.table import Table

    columns = ("scorer", "AUROC physical", "AUROC visual", "physical over visual", "localised", "p (paired t)")
    table = Table(*columns, title=f"Surprise, {result['n']} triples, {result['clips']}")
    for name, scores in {"model": result, **result["baselines"]}.items():
        physical, visual = scores["kinds"]["physical"], scores["kinds"]["visual"]
        table.add_row(
            name,
            *(with_interval(s["auroc"], s["auroc_ci95"]) for s in (physical, visual, scores["physical_vs_visual"])),
            number(physical["localised"]),
            number(physical["p_paired_t"]),
        )
    Console().print(table)

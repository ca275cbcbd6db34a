"""The tables that `lewm surprise` prints, and how a report words the same numbers."""

from __future__ import annotations

from typing import Any

from lewm.probes.statistics import FEW
from lewm.probes.tables import make_console, number

Result = dict[str, Any]
SCORERS = {  # in the order of tables
    "model": "model",
    "calibrated": "calibrated",
    "fading": "fading",
    "untrained": "untrained",
    "pixel_difference": "pixel difference",
    "copy_last": "copy last",
}
HEADLINES = {"physical": ("physical", "teleport", "moved"), "visual": ("visual", "recolour", "agent_colour")}
KIND_HEADER = ("nature", "n", "excluded", "AUROC [95 %]", "d_z", "p Holm", "localised", "clips needed")
NARROW = {"excluded": "ex-\ncluded", "p Holm": "p\nHolm", "localised": "local-\nised", "clips needed": "clips\nneeded"}
WIDE = 120  # columns from which on tables have room for every interval
COLUMNS = 8  # of depths
LEAST_P = 1e-4  # smaller ones are only called so


def natures_of(result: Result) -> dict[str, str]:
    """The nature of each kind; results of older versions have two kinds, named by it."""
    return {kind: scores.get("nature", kind) for kind, scores in result["kinds"].items()}


def kinds_of(result: Result, nature: str) -> list[str]:
    """Kinds of a nature that happened."""
    natures = natures_of(result)
    return [kind for kind, scores in result["kinds"].items() if natures[kind] == nature and scores["n"]]


def headline(result: Result, nature: str) -> str | None:
    """The kind that stands for its nature; None where none happened."""
    kinds = kinds_of(result, nature)
    return next((kind for kind in HEADLINES[nature] if kind in kinds), kinds[0] if kinds else None)


def scorers_of(result: Result) -> dict[str, Result]:
    """Summaries of the model, of its other scores where there are any, and of the baselines."""
    others = {name: result.get(name) for name in ("calibrated", "fading")}
    found = {"model": result, **others, **result["baselines"]}
    return {name: found[name] for name in SCORERS if found.get(name)}


def depths_of(result: Result) -> dict[str, dict[int, Result]]:
    """Summaries by rollout depth from 1 on, of the model and of the calibrated one; {} where a result has no depths."""
    found = {"model": (result, "depths"), "calibrated": (result.get("calibrated"), "calibrated_depths")}
    return {
        form: {1: first} | {int(n): scores for n, scores in result[key].items()}
        for form, (first, key) in found.items()
        if first and result.get(key)
    }


def few_depths(depths: dict[int, Result]) -> list[int]:
    """All depths; of many the powers of 2 and the last."""
    return [n for n in depths if len(depths) <= COLUMNS or n & (n - 1) == 0 or n == max(depths)]


def auroc_text(scores: Result | None, digits: int = 3, interval: bool = True) -> str:
    """0.974 [0.970, 0.978], as far as it is known."""
    if not scores or scores["auroc"] is None:
        return "–"
    low, high = scores.get("auroc_ci95") or (None, None)
    text = f"{scores['auroc']:.{digits}f}"
    return text if low is None or not interval else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def p_text(scores: Result) -> str:
    """p of the paired t-test, corrected where it was."""
    p = scores.get("p_paired_t_holm", scores.get("p_paired_t"))
    return "–" if p is None else "<1e-4" if p < LEAST_P else f"{p:.4f}"


def print_surprise(result: Result) -> None:
    """Every kind of event; baselines; physical against visual; depths; false alarms."""
    console = make_console()
    wide = console.width >= WIDE
    print_kinds(result, console, wide)
    print_scorers(result, console, wide)
    if result.get("physical_vs_visual"):
        print_against_paint(result, console)
    print_depths(result, console)
    console.print(false_alarms(result))
    few = [kind for kind, scores in result["kinds"].items() if 0 < scores.get("groups", FEW) < FEW]
    if few:
        console.print(f"Fewer than {FEW} episodes at {', '.join(few)}: these intervals are not reliable.")


def print_table(console: Any, title: str, header: list[str], sections: list[list[list[str]]]) -> None:
    """A title and a table with a blank line between sections, as narrow as its words."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold", vertical="bottom", no_wrap=i == 0)
    for rows in sections:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    console.print(title, style="bold")
    console.print(table)
    console.print()


def by_nature(result: Result, rows: dict[str, list[str]]) -> list[list[list[str]]]:
    """Rows of kinds, in a section for each nature."""
    natures = natures_of(result)
    return [
        [[kind, *cells] for kind, cells in rows.items() if natures[kind] == nature]
        for nature in dict.fromkeys(natures[kind] for kind in rows)
    ]


def print_kinds(result: Result, console: Any, wide: bool) -> None:
    """One row a kind: AUROC against the same clips undisturbed, effect, p, and where the largest step is."""
    rows = {kind: kind_cells(result, kind, 3 if wide else 2) for kind in result["kinds"]}
    sections = by_nature(result, rows)
    if wide:
        header = ["kind", *KIND_HEADER]
    else:  # the nature stands above its kinds
        header = ["kind", *(NARROW.get(name, name) for name in KIND_HEADER[1:])]
        sections = [[[f"{rows[0][1]}:"], *([row[0], *row[2:]] for row in rows)] for rows in sections]
    title = f"Surprise, {result['n']} clips with and without events, {result['clips']}"
    print_table(console, title, header, sections)


def kind_cells(result: Result, kind: str, digits: int = 3) -> list[str]:
    """Nature, n, excluded, AUROC, effect, p, localised, clips needed."""
    scores, excluded = result["kinds"][kind], result.get("excluded", {}).get(kind)
    needed = scores.get("clips_needed")
    return [
        natures_of(result)[kind],
        str(scores["n"]),
        "–" if excluded is None else str(excluded),
        auroc_text(scores, digits),
        "–" if scores.get("effect_size") is None else f"{scores['effect_size']:.2f}",
        p_text(scores),
        "–" if scores.get("localised") is None else f"{scores['localised']:.2f}",
        "–" if needed is None else str(needed),
    ]


def print_scorers(result: Result, console: Any, wide: bool) -> None:
    """AUROC of the model beside its baselines, by kind."""
    digits = 3 if len(scorers_of(result)) <= 5 else 2  # more columns, of fewer digits
    rows = {k: scorer_cells(result, k, wide, digits) for k, scores in result["kinds"].items() if scores["n"]}
    header = ["kind", *(SCORERS[name] for name in scorers_of(result))]
    print_table(console, "AUROC against unperturbed, by scorer", header, by_nature(result, rows))


def scorer_cells(result: Result, kind: str, interval: bool, digits: int = 3) -> list[str]:
    """AUROC at one kind by every scorer; a dash where surprise cannot fade, as the event lasts."""
    lasts = (result.get("lasts") or {}).get(kind, False)
    return [
        "–" if lasts and name == "fading" else auroc_text(scores["kinds"].get(kind), digits, interval)
        for name, scores in scorers_of(result).items()
    ]


def print_against_paint(result: Result, console: Any) -> None:
    """AUROC of physical events against visual ones, by scorer."""
    rows = [[SCORERS[name], auroc_text(s.get("physical_vs_visual"))] for name, s in scorers_of(result).items()]
    print_table(console, "Physical against visual events, kinds pooled", ["scorer", "AUROC [95 %]"], [rows])


def print_depths(result: Result, console: Any) -> None:
    """AUROC by kind and rollout depth; of the model, and of the calibrated one where there is one."""
    for form, depths in depths_of(result).items():
        title = f"AUROC against unperturbed, {SCORERS[form]}, by rollout depth in blocks"
        header = ["kind", *map(str, few_depths(depths))]
        print_table(console, title, header, by_nature(result, depth_rows(result, depths)))


def depth_rows(result: Result, depths: dict[int, Result]) -> dict[str, list[str]]:
    """AUROC at each depth, by kind."""
    kinds = [kind for kind, scores in result["kinds"].items() if scores["n"]]
    return {k: [auroc_text(depths[n]["kinds"].get(k), 3, False) for n in few_depths(depths)] for k in kinds}


def false_alarms(result: Result) -> str:
    """How many ordinary steps and how many events are alarms; or why nothing was calibrated."""
    found = result.get("alarms")
    if not found:
        why = result.get("not_calibrated")
        return f"Not calibrated: {why}." if why else "Not calibrated."
    low, high = found["false_per_1000_ci95"]
    interval = "" if low is None else f" [{low:.1f}, {high:.1f}]"
    text = f"Alarms (p <= {found['level']:g}): {found['false_per_1000']:.1f}{interval} of 1000 ordinary steps"
    rates = {nature: rate for nature in HEADLINES if (rate := alarmed(result, nature)) is not None}
    text += "".join(f", {100 * rate:.0f} % of {nature} events" for nature, rate in rates.items())
    return f"{text}.{reach(found)}"


def alarmed(result: Result, nature: str) -> float | None:
    """The share of a nature's events that are alarms; None where there is no such event."""
    events = [result["alarms"]["events"][k] for k in kinds_of(result, nature) if k in result["alarms"]["events"]]
    total = sum(event["n"] for event in events)
    return sum(event["n"] * event["rate"] for event in events) / total if total else None


def reach(found: Result) -> str:
    """That alarms cannot be told apart, where there are too few ordinary steps to compare with."""
    return f" The smallest p possible is {number(found['smallest_p'])}." if found["smallest_p"] > found["level"] else ""

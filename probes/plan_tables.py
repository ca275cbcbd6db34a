"""The tables that `lewm plan` prints."""

from __future__ import annotations

from typing import Any

from lewm.probes.tables import make_console, number


def percent(scores: dict[str, Any], name: str = "rate", sign: str = "") -> str:
    """54.0 % [49.1, 58.8], or with a sign."""
    if scores[name] is None:
        return "–"
    low, high = scores["ci95"]
    text = f"{100 * scores[name]:{sign}.1f} %"
    return text if low is None else f"{text} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def print_plan(result: dict[str, Any]) -> None:
    """Success beside the random floor, what was drawn and left out, and what the search took."""
    from rich.table import Table

    console = make_console()
    seeds, num = len(result["seeds"]), result["n"]
    title = f"Planning in {result['env']}, protocol {result['protocol']}, {num} pairs x {seeds} planner seeds"
    table = Table("", "success [95 %]", "by seed", title=title, caption=result["success"]["method"])
    for name, label in (("success", solver_text(result)), ("random", "random actions")):
        scores = result[name]
        table.add_row(label, percent(scores), ", ".join(f"{100 * rate:.0f}" for rate in scores["per_seed"]))
    table.add_row("difference, paired", percent(result["difference"], "mean", "+"), "")
    console.print(table)
    for line in notes(result):
        console.print(line)


def solver_text(result: dict[str, Any]) -> str:
    """cem, 300 samples, 30 iterations, horizon 5, execute 5."""
    solver = result["solver"]
    parts = [f"{solver[name]} {name}" for name in ("samples", "starts", "elites", "iterations") if name in solver]
    if result["goals"] > 1:
        parts.append(f"{result['goals']} goal frames")
    if result["action_penalty"]:
        parts.append(f"action penalty {result['action_penalty']:g}")
    return ", ".join([solver["name"], *parts, f"horizon {solver['horizon']}", f"execute {result['execute']}"])


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know beside the rates, a line each."""
    counts, start = result["drawn_from"], result["solved_at_start"]
    excluded = ", ".join(f"{n} {reason}" for reason, n in result["excluded"].items()) or "none"
    lines = [
        f"budget {result['budget']} steps, goals {result['offset']} steps ahead; split {result['split']}: "
        f"{result['held_out_how']}",
        f"candidates {counts['candidates']} of {counts['episodes']} episodes ({counts['too_short']} too short), "
        f"excluded: {excluded}; solved before the first action: {start['pairs']} of the pairs drawn",
    ]
    ms = result["plan_ms"]
    if ms["plans"]:
        lines.append(
            f"{number(ms['median'], 1)} ms a plan and episode (95 %: {number(ms['p95'], 1)}), {ms['together']:g} "
            f"episodes together; a whole search {number(result['search_ms']['median'], 1)} ms, encoding before it "
            f"{number(result['encode_ms']['median'], 1)} ms"
        )
    if result["drift"]:
        drift = ", ".join(f"{row['block']}: {number(row['mean'])}" for row in result["drift"])
        lines.append(f"drift by blocks ahead, mean (predicted - realised)²: {drift}")
    if result["rule_missed"]:
        lines.append(f"the rule of {result['protocol']} is not met: {'; '.join(result['rule_missed'])}")
    return lines

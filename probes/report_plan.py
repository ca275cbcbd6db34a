"""The part of a report that planning results fill: all protocols in one table, and the pictures of one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lewm.plan.protocols import PROTOCOLS
from lewm.probes import html
from lewm.probes.plan_tables import percent, solver_text
from lewm.probes.tables import number

Result = dict[str, Any]
FOLDERS = {f"plan/{name}": name for name in PROTOCOLS}  # of a report: the protocol whose result lies there
SHOWN_VIDEOS = 2
ABOUT = (
    "The world is put at a recorded start, and the model searches for the actions whose predicted embeddings end "
    "nearest to a goal frame's; it sees frames and its own actions alone. Success is judged by true states, on the "
    "same pairs and seeds for random actions."
)
NOTES = (
    "strict (the default): held-out episodes, goals that ask for something, success by the hardest rule; moderate: the "
    "same pairs' rule with a looser success; paper: as published evaluations judge, for comparison only",
    "random: actions uniform within the bounds; n: pairs of start and goal; excluded: pairs that could have been drawn "
    "and ask for nothing, or cannot be judged",
    "intervals are 95 %; how they were made stands in each result.json",
)
HEADER = ("protocol", "success [95 %]", "random", "difference, paired", "n x seeds", "excluded", "ms a plan")
PICTURES = {
    "episodes": "Start, what happened after each block of actions, and the goal; below, what the model had imagined, "
    "as the real frame whose embedding is nearest. A plan begins at an orange border.",
    "distances": "After each block: latent against true distance to the goal, and both along the rollouts.",
    "costs": "The predicted cost of the candidates, by iteration of the search.",
    "drift": "How far the predictions that were acted on were from what came: a planner that exploits the model's "
    "errors drifts.",
}


def plans_of(results: dict[str, Result]) -> dict[str, Result]:
    """The planning results among all, by protocol."""
    return {protocol: results[name] for name, protocol in FOLDERS.items() if name in results}


def parts(results: dict[str, Result], folder: Path) -> list[str]:
    """Everything between a section's head and its end."""
    found = plans_of(results)
    protocol, result = next(iter(found.items()))
    rules = [f"{name}: {said}" for name, one in found.items() for said in rule_texts(one)]
    return [
        html.paragraph(ABOUT),
        html.table(HEADER, (row(name, one) for name, one in found.items())),
        html.items((*rules, *NOTES)),
        html.subsection(
            f"Under {protocol}",
            html.paragraph(trust(result)),
            *(html.figure(folder / protocol / f"{name}.png", PICTURES[name]) for name in PICTURES),
            *videos(result, folder / protocol),
        ),
    ]


def row(protocol: str, result: Result) -> tuple[str, ...]:
    """One protocol's numbers."""
    return (
        protocol,
        percent(result["success"]),
        percent(result["random"]),
        percent(result["difference"], "mean", "+"),
        f"{result['n']} x {len(result['seeds'])}",
        f"{sum(result['excluded'].values())} of {result['drawn_from']['candidates']}",
        number(result["plan_ms"]["median"], 1),
    )


def rule_texts(result: Result) -> Iterable[str]:
    """How it was planned, on what, and what of the rule was not met."""
    yield f"{solver_text(result)}; budget {result['budget']} steps, goals {result['offset']} ahead"
    yield str(result["held_out_how"])
    excluded = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in result["excluded"].items()) or "none"
    start = f"{result['solved_at_start']['pairs']} of {result['n']} pairs solved before the first action"
    yield f"excluded: {excluded}; {start}"
    if result["rule_missed"]:
        yield f"the rule is not met: {'; '.join(result['rule_missed'])}"


def trust(result: Result) -> str:
    """What was promised and what came of it."""
    promised = result["promised"]
    if promised["predicted"] is None:
        return "No plan was made."
    return (
        f"At the end of each executed plan the latent distance to the goal was predicted to be "
        f"{number(promised['predicted'])} and came out as {number(promised['realised'])} (medians of {promised['n']})."
    )


def videos(result: Result, folder: Path) -> Iterable[str]:
    """The first few films; the others lie beside the result."""
    for name in result.get("videos", [])[:SHOWN_VIDEOS]:
        yield html.film(folder / "videos" / name, f"Pair {name.removesuffix('.gif')}, step by step")

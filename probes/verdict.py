"""What the numbers of a run say in plain words, and the key figures with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lewm.probes.plan_tables import percent
from lewm.probes.provenance import Checkpoint, origin_note
from lewm.probes.report_plan import FOLDERS
from lewm.probes.surprise_tables import auroc_text, headline, kinds_of
from lewm.probes.tables import correlation, number, three_figures

COLLAPSED_STD = 0.1  # SIGReg aims at std 1 in every dimension
COLLAPSED_RANK = 2.0
BLIND_RATIO = 1.01  # wrong actions must raise the error by more than this
TIE = 0.01  # AUROCs closer than this are the same to us
REDUCED = "pixels reduced to as many numbers as the embedding"
PLURALS = {
    "physical": "physical events",
    "teleport": "teleports",
    "moved": "teleports",
    "visual": "visual changes",
    "recolour": "changes of colour",
    "agent_colour": "changes of the agent's colour",
}
INPUTS = (
    "train/loss",
    "val/loss",
    "val/pred_loss",
    "val/copy_last",
    "val/std_mean",
    "val/effective_rank",
    "val/shuffled_action_ratio",
)
Result = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One word for the run, whether it is good (None: not known), and the reasons."""

    word: str
    good: bool | None
    reasons: list[str]


@dataclass(frozen=True)
class Figure:
    """A key number, as it is shown."""

    label: str
    value: str
    note: str


def judge(health: dict[str, float], probe: Result | None, surprise: Result | None) -> Verdict:
    """Diverged, collapsed, not predicting, blind to actions, or healthy, by the last validation and the evaluations."""
    if lost := [name for name in INPUTS if not math.isfinite(health.get(name, 0.0))]:
        return Verdict("diverged", False, [f"The last values of these are not finite: {', '.join(lost)}."])
    faults, fine = [], []
    for word, found in (
        ("collapsed", collapse(health, probe)),
        ("no better than copying", prediction(health, probe)),
        ("blind to actions", actions(health, probe)),
    ):
        if found is not None:
            (fine if found[0] else faults).append((word, found[1]))
    remarks = [physics(surprise)] if surprise else []
    remarks += [imagination(probe), against_controls(probe)] if probe else []
    reasons = [reason for _, reason in faults + fine] + [remark for remark in remarks if remark]
    if faults:
        return Verdict(", ".join(word for word, _ in faults), False, reasons)
    return Verdict("healthy", True, reasons) if fine else Verdict("not judged yet", None, reasons)


def collapse(health: dict[str, float], probe: Result | None) -> tuple[bool, str] | None:
    """Whether the embeddings still fill the space."""
    latent = probe["latent"] if probe else {}
    std = latent.get("std_mean", health.get("val/std_mean"))
    rank = latent.get("effective_rank", health.get("val/effective_rank"))
    if std is None or rank is None:
        return None
    alive = std >= COLLAPSED_STD and rank >= COLLAPSED_RANK
    says = "The latent space is in use" if alive else "The latent space has collapsed"
    return alive, f"{says}: mean standard deviation {number(std)} (aim 1), effective rank {number(rank, 1)}."


def prediction(health: dict[str, float], probe: Result | None) -> tuple[bool, str] | None:
    """Whether the model predicts better than copying the last embedding."""
    if probe and probe.get("open_loop"):
        error, copied = probe["open_loop"][0]["mse"], probe["open_loop"][0]["copy_last_mse"]
    else:
        error, copied = health.get("val/pred_loss"), health.get("val/copy_last")
    if error is None or copied is None:
        return None
    says = "It predicts" if error < copied else "It does not predict"
    return (
        error < copied,
        f"{says}: error one block ahead {number(error)}, copying the last embedding {number(copied)}.",
    )


def actions(health: dict[str, float], probe: Result | None) -> tuple[bool, str] | None:
    """Whether another clip's actions make the prediction worse."""
    if probe and probe.get("open_loop"):
        ratio = probe["open_loop"][0]["shuffled_action_ratio"]
    else:
        ratio = health.get("val/shuffled_action_ratio")
    if ratio is None:  # a single window or clip has no other whose actions it could be given
        return None
    listens = ratio >= BLIND_RATIO
    says = "It uses its actions" if listens else "It is blind to its actions"
    return listens, f"{says}: with those of another clip its error is {number(ratio, 2)} times as large."


def physics(surprise: Result) -> str | None:
    """Whether physical events surprise the model, beside visual ones, an untrained network and the pixel difference."""
    kind, others = headline(surprise, "physical"), surprise["baselines"]
    if kind is None or surprise["kinds"][kind]["auroc_ci95"][0] is None:
        return None
    physical, name = surprise["kinds"][kind], words_of(kind)
    low, high = physical["auroc_ci95"]
    says = f"{name.capitalize()} surprise it" if low > 0.5 else f"Whether {name} surprise it is not settled"
    if high < 0.5:
        says = f"{name.capitalize()} surprise it less than ordinary motion"
    controls = [
        f"{label} {number(others[key]['kinds'][kind]['auroc'], 2)}"
        for key, label in (("untrained", "an untrained network"), ("pixel_difference", "the pixel difference alone"))
        if key in others
    ]
    sentence = f"{says}: AUROC {auroc_text(physical, 2)}, against {' and '.join(controls)}"
    return "; ".join([sentence, *beside(surprise), *caveats(surprise)]) + "."


def words_of(kind: str) -> str:
    """A kind of event in the plural."""
    return PLURALS.get(kind, f"{kind.replace('_', ' ')} events")


def beside(surprise: Result) -> list[str]:
    """The visual kind, the physical one over it, and how many kinds there are besides."""
    found, paint = [], headline(surprise, "visual")
    if paint is not None:
        found.append(f"{words_of(paint)} {auroc_text(surprise['kinds'][paint], 2)}")
    kind = headline(surprise, "physical")
    if over := over_paint(surprise, kind, paint):
        calibrated = over_paint(surprise.get("calibrated") or {}, kind, paint)
        also = f", calibrated {auroc_text(calibrated, 2)}" if calibrated else ""
        found.append(f"{words_of(str(kind))} over {words_of(str(paint))} {auroc_text(over, 2)}{also}")
    if (of := len(kinds_of(surprise, "physical"))) > 1:
        found.append(f"{len(surprising(surprise, 'physical')) or 'none'} of {of} physical kinds surprise it")
    return found


def over_paint(scores: Result, kind: str | None, paint: str | None) -> Result | None:
    """One physical kind against one visual kind; in older results, which have one of each, all against all."""
    return ((scores.get("versus") or {}).get(kind) or {}).get(paint) or scores.get("physical_vs_visual")


def surprising(surprise: Result, nature: str) -> list[str]:
    """Kinds whose whole interval of the AUROC is above chance."""
    lows = {kind: surprise["kinds"][kind]["auroc_ci95"][0] for kind in kinds_of(surprise, nature)}
    return [kind for kind, low in lows.items() if low is not None and low > 0.5]


def caveats(surprise: Result) -> list[str]:
    """What takes from the meaning of a high AUROC at physical events."""
    found, visual, new = [], kinds_of(surprise, "visual"), surprising(surprise, "visual")
    if new:
        which = f"mere {words_of(new[0])}" if len(visual) == 1 else f"{len(new)} of {len(visual)} visual kinds"
        found.append(f"{which} surprise it too")
    kind, pixel = headline(surprise, "physical"), surprise["baselines"].get("pixel_difference")
    if kind and pixel and pixel["kinds"][kind]["auroc"] >= surprise["kinds"][kind]["auroc"] - TIE:
        found.append(f"{words_of(kind)} need no world model to be seen")
    return found


def imagination(probe: Result) -> str | None:
    """Whether what is imagined, at the farthest horizon, is nearer to the world than the last frame and wrong actions.

    Of the first quantity that one frame tells, in its own unit; None where a result lacks these errors.
    """
    told = [name for name, target in probe["targets"].items() if target.get("num_frames") == 1]
    rows = probe.get("horizon", {}).get(told[0]) if told else None
    if not rows:
        return None
    own, copied, other = (rows[-1].get(f"{path}error") for path in ("", "copy_last_", "shuffled_action_"))
    if own is None or copied is None or other is None:
        return None
    says = "What it imagines follows the world"
    if own >= copied:
        says = "What it imagines is no nearer to the world than the last frame"
    elif own >= other:
        says = "What it imagines does not follow its actions"
    blocks = "1 block" if rows[-1]["h"] == 1 else f"{rows[-1]['h']} blocks"
    return (
        f"{says}: imagined {blocks} ahead, {told[0]} is off by {off_by(own, probe['targets'][told[0]])} on average; "
        f"copying the last frame: {three_figures(copied)}, actions of another window: {three_figures(other)}."
    )


def off_by(error: float, target: dict[str, Any]) -> str:
    """An error with its unit."""
    return f"{three_figures(error)} {target.get('error_unit') or ''}".rstrip()


def against_controls(probe: Result) -> str | None:
    """How many quantities are read better, linearly, than from an untrained network and from reduced pixels."""
    targets = probe["targets"]
    counts = {}
    for name in ("untrained", "pixels"):
        controls = [t["controls"][name]["linear"]["r"] for t in targets.values()]
        if any(t["linear"]["r"] is None for t in targets.values()) or None in controls:
            return None
        lows = [t["linear"]["r_ci95"][0] for t in targets.values()]
        counts[name] = sum(low is not None and low > r for low, r in zip(lows, controls, strict=True))
    of = f"of {len(targets)} physical quantities"
    return (
        f"A linear probe reads {counts['untrained'] or 'none'} {of} better from the embedding than from an untrained "
        f"network, and {counts['pixels'] or 'none'} better than from {REDUCED} (better: the whole interval of r is "
        "above the control's r)."
    )


def key_figures(health: dict[str, float], results: dict[str, Result], newest: Checkpoint | None = None) -> list[Figure]:
    """The numbers that a reader looks for first; each note ends with what it was measured on."""
    makers = {"probe": probe_figures, "surprise": surprise_figures}
    if (plan := headline_plan(results)) is not None:
        makers[plan] = plan_figures
    found = []
    for name, make in makers.items():
        if result := results.get(name):
            about = origin_note(result, newest)
            found += [Figure(f.label, f.value, f"{f.note}; {about}" if about else f.note) for f in make(result)]
    if "val/effective_rank" in health:
        found.append(
            Figure("effective rank", number(health["val/effective_rank"], 1), "of the latent space, last validation")
        )
    return found


def headline_plan(results: dict[str, Result]) -> str | None:
    """The result under the strictest protocol that there is one of."""
    return next((name for name in FOLDERS if name in results), None)


def plan_figures(plan: Result) -> list[Figure]:
    """Success, beside random actions."""
    success, random = percent(plan["success"]), percent(plan["random"])
    note = f"{plan['n']} pairs x {len(plan['seeds'])} seeds, {plan['protocol']}; random actions {random}"
    return [Figure("goals reached by planning", success, note)]


def probe_figures(probe: Result) -> list[Figure]:
    """The first three quantities and the error one block ahead."""
    found = []
    for name, target in list(probe["targets"].items())[:3]:
        low, high = target["linear"]["r_ci95"]
        note = f"95 %: {correlation(low)} to {correlation(high)}; MLP {correlation(target['mlp']['r'])}"
        if (error := target["linear"].get("error")) is not None:
            note += f"; off by {off_by(error, target)}"
        found.append(Figure(f"{name}, linear r", correlation(target["linear"]["r"]), note))
    if probe["open_loop"]:
        row = probe["open_loop"][0]
        note = f"copying the last costs {number(row['copy_last_ratio'], 2)} times as much"
        found.append(Figure("error one block ahead", number(row["mse"]), note))
    return found


def surprise_figures(surprise: Result) -> list[Figure]:
    """The AUROC at the headline kind of physical events and of these over visual ones, and the rate of false alarms."""
    found, kind, paint = [], headline(surprise, "physical"), headline(surprise, "visual")
    if kind:
        scores = surprise["kinds"][kind]
        note = f"95 %: {' to '.join(number(end, 2) for end in scores['auroc_ci95'])}; n = {scores['n']}"
        found.append(Figure(f"surprise at {words_of(kind)}, AUROC", number(scores["auroc"]), note))
    if over := over_paint(surprise, kind, paint):
        note = f"95 %: {' to '.join(number(end, 2) for end in over['auroc_ci95'])}"
        if calibrated := over_paint(surprise.get("calibrated") or {}, kind, paint):
            note += f"; calibrated {number(calibrated['auroc'])}"
        found.append(Figure(f"{words_of(str(kind))} over {words_of(str(paint))}, AUROC", number(over["auroc"]), note))
    if alarms := surprise.get("alarms"):
        note = f"ordinary steps with p <= {alarms['level']:g}; {1000 * alarms['level']:g} are expected"
        found.append(Figure("false alarms per 1000 steps", number(alarms["false_per_1000"], 1), note))
    return found

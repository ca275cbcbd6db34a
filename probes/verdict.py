"""What the numbers of a run say in plain words, and the key figures with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lewm.probes.tables import number

COLLAPSED_STD = 0.1  # SIGReg aims at std 1 in every dimension
COLLAPSED_RANK = 2.0
BLIND_RATIO = 1.01  # wrong actions must raise the error by more than this
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
    """Collapsed, predicting nothing, blind to actions, or healthy, from the last validation and the evaluations."""
    faults, fine = [], []
    for word, found in (
        ("collapsed", collapse(health, probe)),
        ("no better than copying", prediction(health, probe)),
        ("blind to actions", actions(health, probe)),
    ):
        if found is not None:
            (fine if found[0] else faults).append((word, found[1]))
    remarks = ([physics(surprise)] if surprise else []) + ([against_controls(probe)] if probe else [])
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
    if ratio is None:
        return None
    listens = ratio >= BLIND_RATIO
    says = "It uses its actions" if listens else "It is blind to its actions"
    return listens, f"{says}: with those of another clip its error is {number(ratio, 2)} times as large."


def physics(surprise: Result) -> str | None:
    """Whether teleports surprise the model, more than the pixel difference alone would tell."""
    physical = surprise["kinds"]["physical"]
    low, high = physical["auroc_ci95"]
    if low is None:
        return None
    pixel = surprise["baselines"]["pixel_difference"]["kinds"]["physical"]["auroc"]
    says = "Teleports surprise it" if low > 0.5 else "Whether teleports surprise it is not settled"
    if high < 0.5:
        says = "Teleports surprise it less than ordinary motion"
    return f"{says}: AUROC {number(physical['auroc'], 2)}; the pixel difference alone gives {number(pixel, 2)}."


def against_controls(probe: Result) -> str | None:
    """How many quantities are read better, linearly, than from an untrained network and from pixels."""
    targets = probe["targets"]
    for name in ("untrained", "pixels"):
        if any(t["linear"]["r"] is None or t["controls"][name]["linear"]["r"] is None for t in targets.values()):
            return None
    won = [
        name
        for name, t in targets.items()
        if all(t["linear"]["r"] > t["controls"][c]["linear"]["r"] for c in ("untrained", "pixels"))
    ]
    return (
        f"Of {len(targets)} physical quantities a linear probe reads {len(won)} better from the embedding than from "
        "an untrained network and from pixels."
    )


def key_figures(health: dict[str, float], results: dict[str, Result]) -> list[Figure]:
    """The numbers that a reader looks for first."""
    found = []
    if probe := results.get("probe"):
        for name, target in list(probe["targets"].items())[:3]:
            low, high = target["linear"]["r_ci95"]
            note = f"95 %: {number(low)} to {number(high)}; MLP {number(target['mlp']['r'])}"
            found.append(Figure(f"{name}, linear r", number(target["linear"]["r"]), note))
        if probe["open_loop"]:
            row = probe["open_loop"][0]
            note = f"copying the last costs {number(row['copy_last_ratio'], 2)} times as much"
            found.append(Figure("error one block ahead", number(row["mse"]), note))
    if surprise := results.get("surprise"):
        physical = surprise["kinds"]["physical"]
        low, high = physical["auroc_ci95"]
        note = f"95 %: {number(low, 2)} to {number(high, 2)}; n = {physical['n']}"
        found.append(Figure("surprise at teleports, AUROC", number(physical["auroc"]), note))
    if plan := results.get("plan"):
        success = plan["success"]
        low, high = success["ci95"]
        note = f"95 %: {100 * low:.0f} to {100 * high:.0f} %; n = {success['n']}"
        found.append(Figure("planning success", f"{100 * success['rate']:.0f} %", note))
    if "val/effective_rank" in health:
        found.append(
            Figure("effective rank", number(health["val/effective_rank"], 1), "of the latent space, validation")
        )
    return found

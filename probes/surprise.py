"""Violation of expectation: how surprised each scorer is at each step of each clip, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from lewm.datasets.violation import Nature
from lewm.errors import UserError
from lewm.probes.calibration import Calibration
from lewm.probes.depths import embed_once, known_before, open_loop_errors
from lewm.probes.seams import Model
from lewm.probes.statistics import (
    auroc,
    auroc_interval,
    cohens_dz,
    holm,
    means_by_group,
    paired_t,
    pairs_needed,
    rate,
    wilcoxon,
)
from lewm.probes.trials import Trial, Trials
from lewm.progress import track

# Frames (v, t, h, w, c) and actions (v, t-1, k, a) to steps (v, t-1), by the name of the score.
Scorer = Callable[[Tensor, Tensor], dict[str, Tensor]]
PER_DIMENSION = "per_dimension"  # the one score that is (v, t-1, d)
ALARM = 0.01  # p-value from which on a step counts as an alarm


class Pairs(NamedTuple):
    """Clips in which something happens, and the same clips as they were."""

    plain: Float[np.ndarray, "m i"]
    disturbed: Float[np.ndarray, "m i"]
    event: Int[np.ndarray, " m"]
    group: Int[np.ndarray, " m"]


@dataclass(frozen=True)
class Steps:
    """Surprise at every step of every clip: clip 0 of a trial is as it was, the others are its kinds, in order.

    NaN where a trial lacks a kind, and where a clip has too few frames before a step.
    """

    natures: dict[str, Nature]
    by_scorer: dict[str, Float[np.ndarray, "n v i"]]
    event: Int[np.ndarray, "n v-1"]  # -1 where the trial lacks the kind
    group: Int[np.ndarray, " n"]
    per_dimension: Float32[np.ndarray, "n v i d"] | None = None  # squared errors of the model, whose mean is its score

    def pairs(self, scorer: str, kind: str) -> Pairs:
        """The trials that have the kind, with an event that the scorer can judge."""
        column, steps = list(self.natures).index(kind), self.by_scorer[scorer]
        # Where no step from the event on has a score, as for fading at the last step, nothing can be found.
        judged = np.arange(steps.shape[2]) >= self.event[:, column, None]
        has = (self.event[:, column] >= 0) & (np.isfinite(steps[:, 1 + column]) & judged).any(axis=1)
        return Pairs(steps[has, 0], steps[has, 1 + column], self.event[has, column], self.group[has])


def pixel_difference(pixels: Tensor, actions: Tensor) -> dict[str, Tensor]:
    """Mean squared change from frame to frame, pixels in 0..1."""
    return {"pixel_difference": (pixels.float() / 255).diff(dim=1).square().mean(dim=(2, 3, 4))}


def one_step(model: Model, name: str) -> Scorer:
    """A model's own surprise, each frame encoded once."""

    def score(pixels: Tensor, actions: Tensor) -> dict[str, Tensor]:
        z = embed_once(model, pixels)
        return {name: (model.predict(z[:, :-1], actions) - z[:, 1:]).float().square().mean(-1)}

    return score


class ModelScorer:
    """All that a model's embeddings say: surprise at depths 1..n, plain and calibrated, and mere change.

    `model` is the paper's s = mean_d (z_hat - z)^2; `depth_n` the same of a prediction n blocks ahead; `calibrated` and
    `calibrated_depth_n` compare it with ordinary steps; `fading` asks whether it passes; `copy_last` is the surprise of
    who expects no motion.
    """

    def __init__(self, model: Model, depth: int, calibrations: list[Calibration] | None) -> None:
        self.model, self.depth, self.calibrations = model, depth, calibrations

    def __call__(self, pixels: Tensor, actions: Tensor) -> dict[str, Tensor]:
        z = embed_once(self.model, pixels)
        errors = open_loop_errors(self.model, z, actions, self.depth)
        found = {"copy_last": z.diff(dim=1).square().mean(-1)}
        found |= {depth_name("model", n): errors[:, n - 1].square().mean(-1) for n in range(1, self.depth + 1)}
        found[PER_DIMENSION] = errors[:, 0].square()
        if errors.shape[2] > 1:  # the only step of a clip cannot fade
            found["fading"] = fading(found["model"])
        if self.calibrations is not None:
            known = known_before(self.model, z, actions, errors)
            for n, calibration in enumerate(self.calibrations, start=1):
                score = torch.full(errors.shape[:1] + errors.shape[2:3], torch.nan, dtype=torch.float64)
                late = [x[:, n - 1, n - 1 :].double().cpu().numpy() for x in (errors, known)]
                score[:, n - 1 :] = torch.from_numpy(calibration.score(*late))
                found[depth_name("calibrated", n)] = score
        return found


def fading(surprise: Float[Tensor, "v i"]) -> Float[Tensor, "v i"]:
    """f_i = s_i / (median_j s_j + mean_{j>i} s_j): surprise that is gone once the event is over.

    After a teleport the world goes on as it always does; a thing of another colour goes on looking strange. An event
    that lasts, physical or not, does not fade. NaN at the last step, after which nothing is known.
    """
    later = surprise.flip(1).cumsum(dim=1).flip(1)[:, 1:] / torch.arange(surprise.shape[1] - 1, 0, -1).to(surprise)
    usual = surprise.median(dim=1, keepdim=True).values
    found = torch.full_like(surprise, torch.nan)
    found[:, :-1] = surprise[:, :-1] / (usual + later).clamp(min=1e-12)
    return found


def depth_name(form: str, n: int) -> str:
    """What a score at rollout depth n is called."""
    return form if n == 1 else {"model": f"depth_{n}", "calibrated": f"calibrated_depth_{n}"}[form]


@torch.inference_mode()
def score_trials(trials: Trials, scorers: list[Scorer], device: torch.device) -> Steps:
    """Surprise of each scorer at each step; a clip's first steps are scored with as little context as they have."""
    kinds = list(trials.natures)
    rows: list[dict[str, np.ndarray]] = []
    events, groups = [], []
    for trial in track(trials.each, "scoring clips"):
        has = [kind in trial.versions for kind in kinds]
        row = {}
        pixels, actions = (torch.from_numpy(x).to(device) for x in stacked(trial, kinds))
        for scorer in scorers:
            for name, found in scorer(pixels, actions).items():
                check_finite(name, found)
                kept = np.float32 if name == PER_DIMENSION else np.float64
                row[name] = np.full((1 + len(kinds), *found.shape[1:]), np.nan, dtype=kept)
                row[name][[True, *has]] = found.to(torch.float64).cpu().numpy()
        rows.append(row)
        events.append([trial.versions[kind].event if kind in trial.versions else -1 for kind in kinds])
        groups.append(trial.group)
    if not rows:
        raise UserError(f"{trials.what}: there is no clip to score")
    steps = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    per_dimension = steps.pop(PER_DIMENSION, None)
    event = np.array(events).reshape(len(rows), len(kinds))
    return Steps(trials.natures, steps, event, np.array(groups), per_dimension)


def check_finite(name: str, found: Tensor) -> None:
    """UserError where a score is infinite, or NaN although every step has one."""
    may_lack = name == "fading" or "depth_" in name
    if torch.isinf(found).any() or (not may_lack and torch.isnan(found).any()):
        raise UserError(f"the surprise of {name!r} is NaN or infinite: a diverged model; use an earlier checkpoint")


def stacked(trial: Trial, kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Frames (v, t, h, w, c) and actions (v, t-1, k, a) of a trial's clips, the plain one first."""
    clips = [trial.plain, *(trial.versions[kind].clip for kind in kinds if kind in trial.versions)]
    return np.stack([clip.pixels for clip in clips]), np.stack([clip.actions for clip in clips])


def summarise(steps: Steps, scorer: str, *, seed: int = 0) -> dict[str, Any]:
    """Per kind AUROC, tests of paired differences and localisation; then physical against visual."""
    kinds = {kind: summarise_kind(steps.pairs(scorer, kind), steps.natures[kind], seed) for kind in steps.natures}
    for name in ("p_paired_t", "p_wilcoxon"):
        corrected = holm(np.array([found[name] for found in kinds.values()], dtype=float))
        for found, p in zip(kinds.values(), corrected, strict=True):
            found[f"{name}_holm"] = float(p)
    return {
        "kinds": kinds,
        "physical_vs_visual": against_paint(steps, scorer, seed),
        "versus": versus(steps, scorer, seed),
    }


def summarise_kind(pairs: Pairs, nature: Nature, seed: int) -> dict[str, Any]:
    """Everything about one kind; a clip's score is its largest step."""
    if len(pairs.event) == 0:
        return {"n": 0, "nature": nature, "auroc_ci95": [np.nan] * 2} | dict.fromkeys(UNDEFINED, np.nan)
    plain, disturbed = (np.nanmax(x, axis=1) for x in (pairs.plain, pairs.disturbed))
    differences = means_by_group(disturbed - plain, pairs.group)  # episodes, not clips, are independent
    effect = cohens_dz(differences)
    return (
        {"nature": nature}
        | compare(disturbed, plain, pairs.group, seed=seed)
        | {"p_paired_t": paired_t(differences), "p_wilcoxon": wilcoxon(differences)}
        | {"effect_size": effect, "pairs": len(differences), "clips_needed": pairs_needed(effect)}
        | localisation(pairs.disturbed, pairs.event, pairs.group, seed=seed)
    )


UNDEFINED = ("auroc", "p_paired_t", "p_wilcoxon", "effect_size", "localised", "localised_within_1", "clips_needed")


def compare(
    positive: np.ndarray,
    negative: np.ndarray,
    group: np.ndarray,
    negative_group: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC with its interval; of pairs, unless the negatives have groups of their own."""
    interval = auroc_interval(positive, negative, group, negative_group, seed=seed)
    return {
        "n": len(positive),
        "n_negative": len(negative),
        "groups": len(np.unique(group)),
        "auroc": auroc(positive, negative),
        "auroc_ci95": interval.bounds,
        "ci_method": interval.method,
    }


def against_paint(steps: Steps, scorer: str, seed: int) -> dict[str, Any] | None:
    """All physical events against all visual ones; None where there are none of a nature."""
    found = {}
    for nature in ("physical", "visual"):
        pairs = [steps.pairs(scorer, kind) for kind, own in steps.natures.items() if own == nature]
        scores = [np.nanmax(p.disturbed, axis=1) for p in pairs if len(p.event)]
        if not scores:
            return None
        found[nature] = np.concatenate(scores), np.concatenate([p.group for p in pairs])
    (positive, group), (negative, negative_group) = found["physical"], found["visual"]
    return compare(positive, negative, group, negative_group, seed=seed)


def versus(steps: Steps, scorer: str, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Each physical kind against each visual one, by AUROC."""
    found = {kind: steps.pairs(scorer, kind) for kind in present(steps)}
    score = {kind: np.nanmax(pairs.disturbed, axis=1) for kind, pairs in found.items()}
    physical, visual = ([kind for kind in found if steps.natures[kind] == nature] for nature in ("physical", "visual"))
    return {
        p: {v: compare(score[p], score[v], found[p].group, found[v].group, seed=seed) for v in visual} for p in physical
    }


def present(steps: Steps) -> list[str]:
    """Kinds that happened at least once."""
    return [kind for kind, happened in zip(steps.natures, (steps.event >= 0).any(axis=0), strict=True) if happened]


def localisation(
    steps: Float[np.ndarray, "n i"], event: Int[np.ndarray, " n"], group: Int[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Any]:
    """Fractions of clips whose largest step is the event's, or at most one step from it, with intervals over groups."""
    distance = np.abs(np.nan_to_num(steps, nan=-np.inf).argmax(axis=1) - event)
    exact, near = (rate(hits, group, seed=seed) for hits in (distance == 0, distance <= 1))
    return {
        "localised": exact["rate"],
        "localised_ci95": exact["ci95"],
        "localised_within_1": near["rate"],
        "localised_within_1_ci95": near["ci95"],
    }


def alarms(steps: Steps, calibration: Calibration, *, seed: int = 0) -> dict[str, Any]:
    """How often a step with p at most `ALARM` is an ordinary one, and how often an event is such a step."""
    p = calibration.p_values(steps.by_scorer["calibrated"])
    ordinary = p[:, 0] <= ALARM
    false = rate(ordinary.ravel(), np.repeat(steps.group, ordinary.shape[1]), seed=seed)
    found: dict[str, Any] = {
        "level": ALARM,
        "smallest_p": 1 / (1 + len(calibration.ranks)),
        "ordinary_steps": ordinary.size,
        "false_per_1000": 1000 * false["rate"],
        "false_per_1000_ci95": [1000 * end for end in false["ci95"]],
        "events": {},
    }
    for column, kind in enumerate(steps.natures):
        has = steps.event[:, column] >= 0
        if has.any():
            hits = p[has, 1 + column, steps.event[has, column]] <= ALARM
            found["events"][kind] = {"n": int(has.sum())} | rate(hits, steps.group[has], seed=seed)
    return found


def aligned(steps: Float[np.ndarray, "n i"], event: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Steps relative to the event, and every clip's surprise there, NaN where it has no such step: (r,), (n, r)."""
    num = steps.shape[1]
    relative = np.arange(-int(event.max()), num - int(event.min()))
    at = relative[None] + event[:, None]
    inside = (at >= 0) & (at < num)
    return relative, np.where(inside, np.take_along_axis(steps, at.clip(0, num - 1), axis=1), np.nan)


def allow_resize(model: Model) -> None:
    """Let the model resize frames of another size, as if it had been trained to."""
    model.interface = replace(model.interface, resize=True)

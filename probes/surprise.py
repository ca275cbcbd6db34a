"""Violation of expectation: is the model surprised by what cannot happen, and less by what only looks new?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lewm.errors import UserError
from lewm.probes.clips import KINDS, Triple
from lewm.probes.seams import Model
from lewm.probes.statistics import auroc, auroc_interval, cohens_dz, means_by_group, paired_t, rate, wilcoxon
from lewm.progress import track

Scorer = Callable[[Tensor, Tensor], Tensor]  # frames (b, t, h, w, c) and actions (b, t-1, k, a) to steps (b, t-1)


@dataclass(frozen=True)
class Steps:
    """Surprise at every step of every clip, by scorer, with the step of each triple's event and its group."""

    by_scorer: dict[str, Float[np.ndarray, "n 3 i"]]
    event: Int[np.ndarray, " n"]
    group: Int[np.ndarray, " n"]


def pixel_difference(pixels: Tensor, actions: Tensor) -> Tensor:
    """Mean squared change from frame to frame, pixels in 0..1: (b, t-1)."""
    return (pixels.float() / 255).diff(dim=1).square().mean(dim=(2, 3, 4))


def copy_last(model: Model) -> Scorer:
    """Mean squared change of the embedding from frame to frame: the surprise of a model that expects no motion."""
    return lambda pixels, actions: model.encode(pixels).float().diff(dim=1).square().mean(-1)


def scorers(model: Model, untrained: Model) -> dict[str, Scorer]:
    """The model's surprise, and what it must be compared with."""
    return {
        "model": model.surprise,
        "untrained": untrained.surprise,
        "pixel_difference": pixel_difference,
        "copy_last": copy_last(model),
    }


@torch.inference_mode()
def score_triples(triples: Iterable[Triple], scorers: dict[str, Scorer], device: torch.device) -> Steps:
    """Surprise of each scorer at each step; a clip's first steps are scored with as little context as they have."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in scorers}
    events, groups = [], []
    for triple in track(triples, "scoring clips"):
        pixels, actions = torch.from_numpy(triple.pixels).to(device), torch.from_numpy(triple.actions).to(device)
        for name, scorer in scorers.items():
            found[name].append(scorer(pixels, actions).float().cpu().numpy())
        events.append(triple.event)
        groups.append(triple.group)
    steps = {name: np.stack(values).astype(np.float64) for name, values in found.items()}
    for name, values in steps.items():
        if not np.isfinite(values).all():
            raise UserError(f"the surprise of {name!r} is NaN or infinite: a diverged model; use an earlier checkpoint")
    return Steps(steps, np.array(events), np.array(groups))


def summarise(
    steps: Float[np.ndarray, "n 3 i"], event: Int[np.ndarray, " n"], group: Int[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Any]:
    """AUROCs of clips' scores (their largest steps), tests of paired differences, and where the largest step is."""
    scores = steps.max(axis=2)
    plain, visual, physical = (scores[:, i] for i in range(3))
    found: dict[str, Any] = {"kinds": {}}
    for kind, perturbed in (("visual", visual), ("physical", physical)):
        differences = means_by_group(perturbed - plain, group)  # episodes, not clips, are independent
        found["kinds"][kind] = (
            compare(perturbed, plain, group, seed)
            | {"p_paired_t": paired_t(differences), "p_wilcoxon": wilcoxon(differences)}
            | {"effect_size": cohens_dz(differences), "pairs": len(differences)}
            | localisation(steps[:, KINDS.index(kind)], event, group, seed=seed)
        )
    found["physical_vs_visual"] = compare(physical, visual, group, seed)
    return found


def compare(positive: np.ndarray, negative: np.ndarray, group: np.ndarray, seed: int) -> dict[str, Any]:
    """AUROC of paired scores with its interval."""
    interval = auroc_interval(positive, negative, group, seed=seed)
    return {
        "n": len(positive),
        "groups": len(np.unique(group)),
        "auroc": auroc(positive, negative),
        "auroc_ci95": interval.bounds,
        "ci_method": interval.method,
    }


def localisation(
    steps: Float[np.ndarray, "n i"], event: Int[np.ndarray, " n"], group: Int[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Any]:
    """Fractions of clips whose largest step is the event's, or at most one step from it, with intervals over groups."""
    distance = np.abs(steps.argmax(axis=1) - event)
    exact, near = (rate(hits, group, seed=seed) for hits in (distance == 0, distance <= 1))
    return {
        "localised": exact["rate"],
        "localised_ci95": exact["ci95"],
        "localised_within_1": near["rate"],
        "localised_within_1_ci95": near["ci95"],
    }


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

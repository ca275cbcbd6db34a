"""How well a quantity is read on episodes that no probe was fitted on: the paper's words, and units of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from lewm.probes.seams import Scale
from lewm.probes.statistics import FEW, mean_interval, pearson_interval
from lewm.probes.targets import Quantity


def score(
    quantity: Quantity,
    scale: Scale,
    true: Float[np.ndarray, "n c"],
    read: Float[np.ndarray, "n c"],
    episode: Int[np.ndarray, " n"],
    *,
    fold: Int[np.ndarray, " n"] | None = None,
    kept: Bool[np.ndarray, " c"] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Standardised MSE (mean and std over frames), r and R2 (means over components), error in physical units.

    `true` and `read` are in the quantity's own numbers; `scale` standardises both by the training frames, so that
    predicting their mean has an MSE near 1. Intervals are over episodes. Where the quantity's place in the picture is
    known, `seen` has the same of the frames in which it is inside the picture.

    `fold` numbers the probe that read each frame. r is then within folds: the higher a fold's test episodes, the lower
    its training mean, so that pooled readings of a probe that reads nothing have an r below 0. `kept` are those
    components that vary in training; MSE, r and R2 are over these.
    """
    fold = np.zeros(len(true), dtype=np.int64) if fold is None else fold
    kept = np.ones(true.shape[1], dtype=bool) if kept is None else kept
    found = measures(quantity, scale, true, read, episode, fold, kept, seed)
    seen = quantity.seen(true)
    if seen is not None and not seen.all() and seen.any():
        found["seen"] = {"share": float(seen.mean())} | measures(
            quantity, scale, true[seen], read[seen], episode[seen], fold[seen], kept, seed
        )
    return found


def measures(
    quantity: Quantity,
    scale: Scale,
    true: np.ndarray,
    read: np.ndarray,
    episode: np.ndarray,
    fold: np.ndarray,
    kept: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The scores of some frames."""
    x, y = scale(true)[:, kept], scale(read)[:, kept]
    squared, error = ((x - y) ** 2).mean(axis=1), quantity.error(true, read)
    names = [name for name, own in zip(quantity.components, kept, strict=True) if own]
    within = centred(x, fold), centred(y, fold)
    each = per_component(x, y, *within, names)
    r = pearson_interval(*within, episode, seed=seed)
    return {
        "n": len(x),
        "episodes": len(np.unique(episode)),
        "mse": float(squared.mean()),
        "mse_std": float(squared.std()),
        "mse_ci95": mean_interval(squared, episode, seed=seed, least=0.0).bounds,
        "r": float(np.mean([c["r"] for c in each])),
        "r2": float(np.mean([c["r2"] for c in each])),
        "r_ci95": r.bounds,
        "ci_method": r.method,
        "ci_reliable": len(np.unique(episode)) >= FEW,
        "error": float(error.mean()),
        "error_ci95": mean_interval(error, episode, seed=seed, least=0.0).bounds,
        "error_median": float(np.median(error)),
        "error_p90": float(np.quantile(error, 0.9)),
        "per_component": each,
    }


def centred(values: Float[np.ndarray, "n c"], fold: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
    """Each fold's values less their mean."""
    found = values.copy()
    for own in (fold == f for f in np.unique(fold)):
        found[own] -= found[own].mean(axis=0)
    return found


def per_component(
    true: Float[np.ndarray, "n c"],
    read: Float[np.ndarray, "n c"],
    true_within: Float[np.ndarray, "n c"],
    read_within: Float[np.ndarray, "n c"],
    components: list[str],
) -> list[dict[str, Any]]:
    """MSE, r (of the values within folds) and R2 of each component; NaN where it does not vary."""
    from torchmetrics.functional import mean_squared_error, pearson_corrcoef, r2_score

    found = []
    arrays = (torch.from_numpy(np.ascontiguousarray(a.T)).double() for a in (true, read, true_within, read_within))
    for name, x, y, v, w in zip(components, *arrays, strict=True):
        varies = len(x) > 1 and float(v.std()) > 1e-9
        follows = varies and float(w.std()) > 1e-9
        found.append(
            {
                "name": name,
                "mse": float(mean_squared_error(y, x)),
                "r": float(pearson_corrcoef(w, v)) if follows else float("nan"),
                "r2": float(r2_score(y, x)) if varies else float("nan"),
            }
        )
    return found

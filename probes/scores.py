"""How well a quantity is read on episodes that no probe was fitted on: the paper's words, and units of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    seed: int = 0,
) -> dict[str, Any]:
    """Standardised MSE (mean and std over frames), r and R2 (means over components), error in physical units.

    `true` and `read` are in the quantity's own numbers; `scale` standardises both by the training frames, so that
    predicting their mean has an MSE near 1. Intervals are over episodes. Where the quantity's place in the picture is
    known, `seen` has the same of the frames in which it is inside the picture.
    """
    found = measures(quantity, scale, true, read, episode, seed)
    seen = quantity.seen(true)
    if seen is not None and not seen.all() and seen.any():
        share = {"n": int(seen.sum()), "share": float(seen.mean())}
        found["seen"] = share | measures(quantity, scale, true[seen], read[seen], episode[seen], seed)
    return found


def measures(
    quantity: Quantity, scale: Scale, true: np.ndarray, read: np.ndarray, episode: np.ndarray, seed: int
) -> dict[str, Any]:
    """The scores of some frames."""
    x, y = scale(true), scale(read)
    squared, error = ((x - y) ** 2).mean(axis=1), quantity.error(true, read)
    each = per_component(torch.from_numpy(x).double(), torch.from_numpy(y).double(), quantity.components)
    r = pearson_interval(x, y, episode, seed=seed)
    return {
        "mse": float(squared.mean()),
        "mse_std": float(squared.std()),
        "mse_ci95": mean_interval(squared, episode, seed=seed).bounds,
        "r": float(np.mean([c["r"] for c in each])),
        "r2": float(np.mean([c["r2"] for c in each])),
        "r_ci95": r.bounds,
        "ci_method": r.method,
        "ci_reliable": len(np.unique(episode)) >= FEW,
        "error": float(error.mean()),
        "error_ci95": mean_interval(error, episode, seed=seed).bounds,
        "error_median": float(np.median(error)),
        "error_p90": float(np.quantile(error, 0.9)),
        "per_component": each,
    }


def per_component(
    true: Float[Tensor, "n c"], read: Float[Tensor, "n c"], components: list[str]
) -> list[dict[str, Any]]:
    """MSE, r and R2 of each component; NaN where it does not vary."""
    from torchmetrics.functional import mean_squared_error, pearson_corrcoef, r2_score

    found = []
    for name, x, y in zip(components, true.T.contiguous(), read.T.contiguous(), strict=True):
        varies = len(x) > 1 and float(x.std()) > 1e-9
        follows = varies and float(y.std()) > 1e-9
        found.append(
            {
                "name": name,
                "mse": float(mean_squared_error(y, x)),
                "r": float(pearson_corrcoef(y, x)) if follows else float("nan"),
                "r2": float(r2_score(y, x)) if varies else float("nan"),
            }
        )
    return found

"""How well a probe does on the test episodes, in the paper's words: standardised MSE and Pearson's r."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lewm.probes.seams import Probe, Rows, Scale
from lewm.probes.statistics import mean_interval, pearson_interval


def score(
    true: Float[np.ndarray, "n c"],
    predicted: Float[np.ndarray, "n c"],
    episode: Int[np.ndarray, " n"],
    *,
    components: list[str],
    seed: int = 0,
) -> dict[str, Any]:
    """MSE (mean and std over frames), r and R2 (means over components), and intervals over episodes.

    Both arrays are standardised by the training frames, so that predicting their mean has an MSE near 1.
    """
    squared = ((true - predicted) ** 2).mean(axis=1)
    each = per_component(torch.from_numpy(true).double(), torch.from_numpy(predicted).double(), components)
    r = pearson_interval(true, predicted, episode, seed=seed)
    return {
        "mse": float(squared.mean()),
        "mse_std": float(squared.std()),
        "mse_ci95": mean_interval(squared, episode, seed=seed).bounds,
        "r": float(np.mean([c["r"] for c in each])),
        "r2": float(np.mean([c["r2"] for c in each])),
        "r_ci95": r.bounds,
        "ci_method": r.method,
        "per_component": each,
    }


def per_component(
    true: Float[Tensor, "n c"], predicted: Float[Tensor, "n c"], components: list[str]
) -> list[dict[str, Any]]:
    """MSE, r and R2 of each component; NaN where it does not vary."""
    from torchmetrics.functional import mean_squared_error, pearson_corrcoef, r2_score

    found = []
    for name, x, y in zip(components, true.T.contiguous(), predicted.T.contiguous(), strict=True):
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


def score_probe(probe: Probe, train: Rows, test: Rows, *, components: list[str], seed: int = 0) -> dict[str, Any]:
    """Scores of a fitted probe on test rows."""
    true = Scale.of(train.y)(test.y)
    return score(true, probe.predict(test.x), test.episode, components=components, seed=seed)

"""Numbers of a planning result: rates with intervals, their paired difference, drift, costs, what was promised."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lewm.plan.evaluate import Evaluation
from lewm.probes.statistics import Interval, clopper_pearson, mean_interval, means_by_group, rate_interval


def success(solved: Bool[np.ndarray, "s p"], labels: Int[np.ndarray, " p"], *, seed: int = 0) -> dict[str, Any]:
    """Rate over pairs and seeds with its interval: Wilson over pairs for one seed, bootstrap over pairs for several.

    Pairs of one episode, which `paper` allows, count as one group.
    """
    seeds, num = solved.shape
    found = rate_interval(solved.ravel(), np.tile(labels, seeds), seed=seed)
    return {
        "n": num,
        "rate": float(solved.mean()),
        "ci95": found.bounds,
        "method": found.method.replace("episodes", "pairs"),
        "per_seed": solved.mean(axis=1).tolist(),
    }


def difference(
    solved: Bool[np.ndarray, "s p"],
    floor: Bool[np.ndarray, "s p"],
    labels: Int[np.ndarray, " p"],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Paired difference of two rates on the same pairs and seeds, with a bootstrap interval over pairs."""
    each = solved.astype(float).mean(axis=0) - floor.astype(float).mean(axis=0)
    found = difference_interval(each, labels, seed=seed)
    return {
        "mean": float(each.mean()),
        "ci95": found.bounds,
        "method": found.method.replace("episodes", "pairs"),
        "better": int((each > 0).sum()),
        "worse": int((each < 0).sum()),
    }


def difference_interval(each: Float[np.ndarray, " p"], labels: Int[np.ndarray, " p"], *, seed: int = 0) -> Interval:
    """Of a mean of numbers in [-1, 1]; where all groups agree, which a bootstrap takes for certainty, an exact bound.

    With all of n groups at v, at least p = 0.025^(1/n) of all groups are there (Clopper and Pearson); what the others
    may be is at -1 or at 1.
    """
    means = means_by_group(each, labels)
    if np.ptp(means) == 0:
        value, p = float(means[0]), clopper_pearson(len(means), len(means)).low
        low, high = (p * value + (1 - p) * end for end in (-1.0, 1.0))
        return Interval(low, high, "exact, all pairs agree")
    low, high, method = mean_interval(each, labels, seed=seed)
    return Interval(max(-1.0, low), min(1.0, high), method)


def drift(found: Evaluation, labels: Int[np.ndarray, " p"], *, seed: int = 0) -> list[dict[str, Any]]:
    """mean((predicted - realised)^2) by how many blocks ahead it was predicted, over all plans that were executed.

    `seen` counts blocks; the interval is over pairs.
    """
    label = np.tile(labels, len(found.rollouts) // len(labels))
    rows = [
        (n, value, label[i])
        for i, rollout in enumerate(found.rollouts)
        for n, value in zip(rollout.ahead, rollout.drift, strict=True)
    ]
    ahead, values, groups = (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 3
    result = []
    for n in np.unique(ahead):
        own = ahead == n
        interval = mean_interval(values[own], groups[own], seed=seed)
        quantiles = np.quantile(values[own], [0.1, 0.5, 0.9]).tolist()
        result.append(
            {"block": int(n), "seen": int(own.sum()), "mean": float(values[own].mean()), "ci95": interval.bounds}
            | dict(zip(("p10", "median", "p90"), quantiles, strict=True))
        )
    return result


def promises(found: Evaluation, blocks: int) -> dict[str, Any]:
    """Median |z - z_goal|^2 after the last block executed of each plan: as predicted, and as it came.

    What a planner gains from the model's errors is realised far above its prediction.
    """
    predicted, realised = [], []
    for rollout in found.rollouts:
        for i, n in enumerate(rollout.ahead):
            if n == blocks or i + 1 == len(rollout.ahead) or rollout.ahead[i + 1] <= n:
                predicted.append(rollout.predicted_latent[i])
                realised.append(rollout.latent[i])
    if not predicted:
        return {"predicted": None, "realised": None, "n": 0}
    return {"predicted": float(np.median(predicted)), "realised": float(np.median(realised)), "n": len(predicted)}


def costs(found: Evaluation) -> list[dict[str, Any]]:
    """Least and mean cost of each iteration: median and central 80 % over plans."""
    result = []
    traced = found.costs()
    for i, (best, mean) in enumerate(zip(traced["best"], traced["mean"], strict=True)):
        low, middle, high = np.quantile(best, [0.1, 0.5, 0.9]).tolist()
        row = {"iteration": i + 1, "best_median": middle, "best_p10": low, "best_p90": high}
        result.append(row | {"mean_median": float(np.median(mean))})
    return result


def correlation(latent: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation; None where one of them does not vary."""
    if len(latent) < 3 or np.ptp(latent) == 0 or np.ptp(true) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(latent, true).statistic)  # type: ignore[attr-defined]

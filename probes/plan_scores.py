"""Numbers of a planning result: rates with intervals, their paired difference, drift, costs, what was promised."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lewm.plan.evaluate import Evaluation
from lewm.probes.statistics import (
    Interval,
    clopper_pearson,
    groups_of,
    mean_interval,
    means_by_group,
    rate_interval,
    sums_by_group,
    wilson_interval,
)


def success(solved: Bool[np.ndarray, "s p"], labels: Int[np.ndarray, " p"], *, seed: int = 0) -> dict[str, Any]:
    """Rate over pairs and seeds with its interval: Wilson over pairs for one seed, for several the bootstrap as well.

    The bootstrap is too narrow for rates near 0 or 1, so an interval is never narrower than Wilson's for one seed on as
    many pairs. Pairs of one episode, which `paper` allows, count as one group.
    """
    seeds, num = solved.shape
    found = rate_interval(solved.ravel(), np.tile(labels, seeds), seed=seed)
    found = wider(found, _wilson(float(solved.mean()), groups_of(labels)[0]))
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
    """Paired difference of two rates on the same pairs and seeds, with its interval and a sign test over pairs.

    For one seed Newcombe's interval; for several, or several pairs of an episode, one over the means of pairs, never
    narrower than Newcombe's for one seed on as many pairs whose outcomes are unrelated: near 0 or 1 the others are too
    narrow.
    `p_sign` is exact and two-sided: of the pairs that differ as many are better as a fair coin would show; for one seed
    this is McNemar's test.
    """
    each = solved.astype(float).mean(axis=0) - floor.astype(float).mean(axis=0)
    if len(solved) == 1 and groups_of(labels)[0] == len(labels):
        found = newcombe(solved[0], floor[0])
    else:
        found = difference_interval(each, labels, seed=seed)
        found = wider(found, square_and_add(float(solved.mean()), float(floor.mean()), groups_of(labels)[0]))
    means = means_by_group(each, labels)
    return {
        "mean": float(each.mean()),
        "ci95": found.bounds,
        "method": found.method.replace("episodes", "pairs"),
        "better": int((each > 0).sum()),
        "worse": int((each < 0).sum()),
        "p_sign": sign_test(int((means > 0).sum()), int((means < 0).sum())),
    }


def wider(one: Interval, other: Interval) -> Interval:
    """The lower of two lower ends and the higher of two higher ones."""
    method = one.method if one.method == other.method else f"wider of {one.method} and {other.method}"
    return Interval(min(one.low, other.low), max(one.high, other.high), method)


def sign_test(better: int, worse: int) -> float:
    """Exact two-sided p of as many heads and tails from a fair coin; 1 of no throw."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def newcombe(first: Bool[np.ndarray, " p"], second: Bool[np.ndarray, " p"]) -> Interval:
    """Score interval of the difference of two rates on the same pairs: Newcombe's square-and-add, method 10 [0].

    With Wilson's interval l..u of each rate r, and the correlation phi of the two outcomes, corrected for continuity:

        low = d - sqrt((r1 - l1)^2 - 2 phi (r1 - l1) (u2 - r2) + (u2 - r2)^2),   d = r1 - r2, high alike.

    [0] R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired
        data, Statistics in Medicine 17 (1998).
    """
    num = len(first)
    rates = float(first.mean()), float(second.mean())
    (l1, u1, _), (l2, u2, _) = (_wilson(rate, num) for rate in rates)
    both, one, other, none = (int((a & b).sum()) for a in (first, ~first) for b in (second, ~second))
    product = (both + one) * (other + none) * (both + other) * (one + none)
    over = both * none - one * other
    phi = (max(over - num / 2, 0) if over > 0 else over) / np.sqrt(product) if product else 0.0

    low, high = _added(rates, ((l1, u1), (l2, u2)), phi)
    return Interval(low, high, "Newcombe's score interval of paired rates")


def square_and_add(first: float, second: float, num: int) -> Interval:
    """Newcombe's interval of the difference of two rates of `num` each, as if they were unrelated (phi = 0)."""
    ends = tuple(_wilson(rate, num).bounds for rate in (first, second))
    low, high = _added((first, second), ends, 0.0)
    return Interval(low, high, "Newcombe's score interval")


def _added(rates: tuple[float, float], ends: Any, phi: float) -> tuple[float, float]:
    (l1, u1), (l2, u2) = ends

    def add(x: float, y: float) -> float:
        return float(np.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)))

    d = rates[0] - rates[1]
    low, high = d - add(rates[0] - l1, u2 - rates[1]), d + add(u1 - rates[0], rates[1] - l2)
    return max(-1.0, low), min(1.0, high)


def difference_interval(each: Float[np.ndarray, " p"], labels: Int[np.ndarray, " p"], *, seed: int = 0) -> Interval:
    """Of a mean of numbers in [-1, 1]: the wider of a bootstrap and Student's t over groups.

    Where all groups agree, which both take for certainty, an exact bound. With all of n groups at v, at least
    p = 0.025^(1/n) of all groups are there (Clopper and Pearson); what the others may be is at -1 or at 1.
    """
    means = means_by_group(each, labels)
    if np.ptp(means) == 0:
        value, p = float(means[0]), clopper_pearson(len(means), len(means)).low
        low, high = (p * value + (1 - p) * end for end in (-1.0, 1.0))
        return Interval(low, high, "exact, all pairs agree")
    low, high, method = wider(mean_interval(each, labels, seed=seed), student(each, labels))
    return Interval(max(-1.0, low), min(1.0, high), method)


def student(each: Float[np.ndarray, " p"], labels: Int[np.ndarray, " p"]) -> Interval:
    """Student's t over groups of the mean of all rows, linearised as in `mean_interval`."""
    from scipy.stats import t

    sums = sums_by_group(np.stack([each, np.ones(len(each))], axis=1), labels)
    num, mean = len(sums), float(each.mean())
    error = np.sqrt(num / (num - 1) * ((sums[:, 0] - mean * sums[:, 1]) ** 2).sum()) / len(each)
    half = float(t.ppf(0.975, num - 1) * error)
    return Interval(mean - half, mean + half, "Student's t over episodes")


def _wilson(rate: float, num: int) -> Interval:
    """Of a rate that need not be a whole number of successes."""
    return wilson_interval(rate * num, num)  # type: ignore[arg-type]


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
        interval = mean_interval(values[own], groups[own], seed=seed, least=0.0)
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

"""Intervals and tests behind every reported number; episodes, not frames, are what is resampled.

Frames of one episode resemble each other, so an interval over frames would be far too narrow. Below `FEW` episodes the
bootstrap is too narrow as well (it cannot invent episodes it has not seen), and closed forms take its place.

At 20 to 30 episodes percentiles of a bounded statistic are still too narrow: they hold an AUROC of 0.9 or a clustered r
in 86 to 90 % of samples, because both scatter skewly near their bounds and n episodes tell their own spread only
roughly. So the bootstrap gives the standard error alone, on a scale where the statistic is about normal (logit of an
AUROC, atanh of an r), and Student's t with n - 1 degrees of freedom gives the width:
g +- t_{n-1, 0.975} * sd_boot(g), transformed back (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

FEW = 20  # episodes below which the bootstrap is not trusted
RESAMPLES = 2000
LEVEL = 0.95
METHOD = "bootstrap over episodes, Student's t on a transformed scale"
BLOCK = 4_000_000  # counts drawn at once: 32 MB


class Interval(NamedTuple):
    """A 95 % interval and how it was found; NaN where the data allow none."""

    low: float
    high: float
    method: str

    @property
    def bounds(self) -> list[float]:
        """[low, high], as results are written."""
        return [self.low, self.high]


def groups_of(labels: Int[np.ndarray, " n"]) -> tuple[int, np.ndarray]:
    """Number of distinct labels (episodes), and each row's group 0..number-1."""
    found, group = np.unique(labels, return_inverse=True)
    return len(found), group


def sums_by_group(values: Float[np.ndarray, "n ..."], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "e ..."]:
    """Sum of each episode's rows."""
    num, group = groups_of(labels)
    sums = np.zeros((num, *values.shape[1:]))
    np.add.at(sums, group, values)
    return sums


def resampled(
    sums: Float[np.ndarray, "e ..."],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Float[np.ndarray, " r"]:
    """A statistic that depends on additive sums per episode, over resampled episodes.

    Drawing episodes with replacement is drawing how often each one occurs, so the sums of all resamples are one
    matrix product, whatever the number of frames. `statistic` maps (resamples, ...) to (resamples,).
    """
    num = len(sums)
    rng = np.random.default_rng(seed)
    flat = sums.reshape(num, -1)
    values = []
    for low in range(0, resamples, per_block := max(1, BLOCK // num)):
        counts = rng.multinomial(num, np.full(num, 1 / num), size=min(per_block, resamples - low))
        values.append(statistic((counts @ flat).reshape(-1, *sums.shape[1:])))
    return np.concatenate(values)


def percentiles(values: Float[np.ndarray, " r"]) -> Interval:
    """The central 95 % of resampled values; resamples in which the statistic is undefined do not count."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return Interval(np.nan, np.nan, "undefined")
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "bootstrap over episodes")


def transformed_interval(
    estimate: float, values: Float[np.ndarray, " r"], num: int, *, low: float, high: float, margin: float
) -> Interval:
    """g +- t_{num-1, 0.975} * sd(g), transformed back; g is the logit of the place between the bounds `low` and `high`.

    For bounds -1 and 1 the logit is 2 atanh, for 0 and 1 the plain one. Values closer to a bound than `margin` (in
    shares of the range) are moved there, lest one resample at the bound make the spread infinite.
    """
    from scipy.special import expit, logit
    from scipy.stats import t

    finite = values[np.isfinite(values)]
    if len(finite) < 2 or not np.isfinite(estimate):
        return Interval(np.nan, np.nan, "undefined")
    if np.ptp(finite) <= 1e-12:  # every resample agrees
        return Interval(estimate, estimate, "bootstrap over episodes")
    span = high - low
    centre, g = (logit(np.clip((x - low) / span, margin, 1 - margin)) for x in (estimate, finite))
    half = float(t.ppf((1 + LEVEL) / 2, num - 1) * g.std(ddof=1))
    bounds = low + span * expit(np.array([centre - half, centre + half]))
    # The estimate is inside but for the margin and the last digit.
    return Interval(min(float(bounds[0]), estimate), max(float(bounds[1]), estimate), METHOD)


def mean_interval(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
    least: float = -np.inf,
) -> Interval:
    """Interval of the mean of all rows; below `FEW` episodes Student's t on the linearised ratio of sums.

    It ends at the `least` value that a row can have, 0 of an error: what lies below covers nothing.
    """
    values = np.asarray(values, dtype=np.float64)
    sums = sums_by_group(np.stack([values, np.ones_like(values)], axis=1), labels)
    if len(sums) >= FEW:
        return percentiles(resampled(sums, lambda s: s[:, 0] / s[:, 1], seed=seed))
    if len(sums) < 2:
        return Interval(np.nan, np.nan, "undefined: one episode")
    from scipy.stats import t

    # Var(sum y / sum m) is about sum (y_e - mean * m_e)^2 / (sum m)^2 (Cochran, Sampling Techniques, section 6.3).
    num, mean = len(sums), values.mean()
    error = np.sqrt(num / (num - 1) * ((sums[:, 0] - mean * sums[:, 1]) ** 2).sum()) / sums[:, 1].sum()
    half = float(t.ppf((1 + LEVEL) / 2, num - 1) * error)
    return Interval(max(float(mean) - half, least), float(mean) + half, "Student's t over episodes")


def pearson_from_sums(sums: Float[np.ndarray, "r 6 c"]) -> Float[np.ndarray, " r"]:
    """Mean over components of Pearson's r, from sums of 1, x, y, x^2, y^2 and xy."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))
    return np.clip(r, -1, 1).mean(axis=-1)


def pearson_interval(
    x: Float[np.ndarray, "n c"], y: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], *, seed: int = 0
) -> Interval:
    """Interval of the mean over components of r(x, y), on the atanh scale; below `FEW` episodes Fisher's z.

    Fisher's interval then counts each episode as a single frame, which errs on the wide side.
    """
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)  # the sums lose fewer digits
    sums = sums_by_group(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), labels)
    r = float(pearson_from_sums(sums.sum(axis=0, keepdims=True))[0])
    if len(sums) < FEW:
        return fisher_interval(r, len(sums))
    values = resampled(sums, pearson_from_sums, seed=seed)
    return transformed_interval(r, values, len(sums), low=-1.0, high=1.0, margin=1e-9)


def fisher_interval(r: float, num: int) -> Interval:
    """Interval of a correlation from `num` independent pairs: tanh(atanh r +- 1.96 / sqrt(num - 3))."""
    if not np.isfinite(r):
        return Interval(np.nan, np.nan, "undefined")
    if num <= 3:
        return Interval(-1.0, 1.0, "undefined below 4 episodes")
    z, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), 1.959964 / np.sqrt(num - 3)
    return Interval(float(np.tanh(z - half)), float(np.tanh(z + half)), "Fisher's z, n = episodes")


def wins(positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " q"]) -> Float[np.ndarray, "p q"]:
    """1 where the positive's score is the larger, 1/2 on ties; its mean is the AUROC (Mann and Whitney, 1947)."""
    return (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])


def auroc(positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " q"]) -> float:
    """Chance that a positive's score exceeds a negative's."""
    from sklearn.metrics import roc_auc_score

    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def auroc_interval(
    positive: Float[np.ndarray, " p"],
    negative: Float[np.ndarray, " q"],
    labels: Int[np.ndarray, " p"],
    negative_labels: Int[np.ndarray, " q"] | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """Interval of the AUROC on the logit scale, resampling groups (an episode, or a trial) with all their scores.

    Scores are paired, with the same labels, unless the negatives have labels of their own. Resamples at 0 or 1 count as
    half a win of the num^2 from there. At 0 or 1, or where all pairs tie, every resample agrees, and below `FEW` groups
    they are too alike: there the exact interval of a rate is given, of AUROC * n successes in n = groups disjoint
    pairs, each won with a chance equal to the AUROC. At AUROC 1 its lower end is 0.025^(1/n), the two-sided form of the
    rule of three (Clopper and Pearson, Biometrika 1934).
    """
    others = labels if negative_labels is None else negative_labels
    num, group = groups_of(np.concatenate([labels, others]))
    mine, theirs = np.eye(num)[group[: len(labels)]], np.eye(num)[group[len(labels) :]]
    # table: (num, num), wins of one group's positives over another's negatives, of so many pairs
    table, pairs = mine.T @ wins(positive, negative) @ theirs, np.outer(mine.sum(axis=0), theirs.sum(axis=0))
    estimate = float(table.sum() / pairs.sum())
    disjoint = min(len(np.unique(labels)), len(np.unique(others)))
    exact = clopper_pearson(estimate * disjoint, disjoint)
    if disjoint < FEW:
        return exact
    weights = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=RESAMPLES).astype(np.float64)
    won, drawn = (((weights @ x) * weights).sum(axis=1) for x in (table, pairs))
    values = won[drawn > 0] / drawn[drawn > 0]
    if np.ptp(values) <= 1e-9:
        return exact
    return transformed_interval(estimate, values, num, low=0.0, high=1.0, margin=0.5 / num**2)


def clopper_pearson(successes: float, num: int) -> Interval:
    """Exact interval of a rate, from Beta quantiles; `successes` need not be whole."""
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, successes, num - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, num - successes)) if successes < num else 1.0
    return Interval(low, high, "Clopper-Pearson, n = groups")


def wilson_interval(successes: int, num: int) -> Interval:
    """Interval of a rate (Wilson, JASA 1927)."""
    if num == 0:
        return Interval(np.nan, np.nan, "undefined")
    z, rate = 1.959964, successes / num
    centre = (rate + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * np.sqrt(rate * (1 - rate) / num + z**2 / (4 * num**2))
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)), "Wilson")


def means_by_group(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " e"]:
    """Mean of each group's rows, so that a test counts every episode once."""
    sums = sums_by_group(np.stack([values, np.ones(len(values))], axis=1), labels)
    return sums[:, 0] / sums[:, 1]


def paired_t(differences: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of Student's paired t-test; NaN below 2 pairs."""
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:  # no spread: t is 0/0 or infinite
        return 1.0 if differences[0] == 0 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)  # type: ignore[attr-defined]


def wilcoxon(differences: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; NaN below 2 pairs."""
    if len(differences) < 2:
        return float("nan")
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(differences).pvalue)  # type: ignore[attr-defined]


def cohens_dz(differences: Float[np.ndarray, " n"]) -> float:
    """Mean of the paired differences over their standard deviation; infinite where that is 0, and NaN if both are."""
    std = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if std == 0 and len(differences) > 1 and differences[0] != 0:
        return float(np.copysign(np.inf, differences[0]))
    return float(differences.mean() / std) if std > 0 else float("nan")


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """p-values corrected for their number: the i-th smallest times n - i, never falling (Holm, Scand J Statist 1979).

    NaN, where there was nothing to test, stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def pairs_needed(effect_size: float, *, level: float = 0.01, power: float = 0.9, most: int = 10_000) -> int | None:
    """Fewest pairs with which a two-sided paired t-test finds such a d_z > 0 in that share of samples.

    None beyond `most`, and for an effect that is 0 or the other way round; 2 where every difference is the same.

    The power of n pairs is P(|T| > t_{n-1, 1-level/2}) of the noncentral T with n - 1 degrees of freedom and
    noncentrality d_z sqrt(n) (Cohen, Statistical power analysis, chapter 2).
    """
    if np.isnan(effect_size) or effect_size <= 0:
        return None
    if np.isinf(effect_size):
        return 2
    from scipy.stats import nct, t

    n = np.arange(2, most + 1)
    bound, shift = t.ppf(1 - level / 2, n - 1), effect_size * np.sqrt(n)
    # The far tail adds nothing where it matters, and nct loses digits there.
    reached = np.nan_to_num(nct.sf(bound, n - 1, np.minimum(shift, 37)), nan=1.0) >= power
    return int(n[reached][0]) if reached.any() else None


def rate(
    hits: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, float | list[float]]:
    """A fraction with its interval: Wilson's, or one over groups where several rows are of one group."""
    return {"rate": float(hits.mean()), "ci95": rate_interval(hits, labels, seed=seed).bounds}


def rate_interval(hits: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"], *, seed: int = 0) -> Interval:
    """Wilson's interval of independent rows; of grouped ones `mean_interval` in [0, 1], exact where rows all agree."""
    num = len(np.unique(labels))
    if num == len(hits):
        return wilson_interval(int(hits.sum()), num)
    if num < 2 or np.ptp(means_by_group(hits, labels)) == 0:
        return clopper_pearson(float(hits.mean()) * num, num)
    low, high, method = mean_interval(hits, labels, seed=seed)
    return Interval(max(0.0, low), min(1.0, high), method)

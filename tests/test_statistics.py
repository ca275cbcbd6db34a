import numpy as np
import pytest
from scipy import special, stats

from lewm.probes import statistics as st


def correlated(rng, episodes=30, rows=40, noise=0.5):
    x = np.repeat(rng.normal(size=(episodes, 2)), rows, axis=0) + rng.normal(size=(episodes * rows, 2))
    return x, x + noise * rng.normal(size=x.shape), np.repeat(np.arange(episodes), rows)


def mean_r(x, y):
    return float(np.mean([stats.pearsonr(x[:, c], y[:, c]).statistic for c in range(x.shape[1])]))


def test_pearson_bootstrap_equals_a_naive_loop_over_episodes():
    rng = np.random.default_rng(0)
    x, y, episode = correlated(rng)
    naive = []  # of atanh r
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(episode == e) for e in rng.integers(30, size=30)])
        naive.append(np.arctanh(mean_r(x[rows], y[rows])))
    found = st.pearson_interval(x, y, episode)
    half = stats.t.ppf(0.975, 29) * np.std(naive, ddof=1)
    assert found.method.startswith("bootstrap over episodes")
    assert np.allclose(found.bounds, np.tanh(np.arctanh(mean_r(x, y)) + np.array([-half, half])), atol=0.01)
    assert found.low < mean_r(x, y) < found.high


def test_r_from_sums_equals_scipys_r():
    x, y, _ = correlated(np.random.default_rng(1))
    sums = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).sum(0, keepdims=True)
    assert st.pearson_from_sums(sums)[0] == pytest.approx(mean_r(x, y), abs=1e-10)


def test_mean_bootstrap_equals_a_naive_loop_over_episodes_of_unequal_length():
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 60, size=25)
    episode = np.repeat(np.arange(25), sizes)
    values = rng.normal(size=25)[episode] + rng.normal(size=len(episode))
    parts = [values[episode == e] for e in range(25)]
    naive = [np.concatenate([parts[e] for e in rng.integers(25, size=25)]).mean() for _ in range(2000)]
    assert np.allclose(st.mean_interval(values, episode).bounds, np.quantile(naive, [0.025, 0.975]), atol=0.06)


@pytest.mark.parametrize("episodes", [6, 40])
def test_mean_interval_covers_the_truth_about_as_often_as_it_says(episodes):
    rng, hits = np.random.default_rng(3), 0
    for _ in range(200):
        episode = np.repeat(np.arange(episodes), 10)
        values = rng.normal(size=episodes)[episode] + rng.normal(size=len(episode))
        low, high = st.mean_interval(values, episode).bounds
        hits += low < 0 < high
    assert 0.88 <= hits / 200 <= 0.99  # an interval over frames would cover about half as often


def test_few_episodes_get_a_closed_form_and_one_gets_none():
    x, y, episode = correlated(np.random.default_rng(4), episodes=8)
    assert st.pearson_interval(x, y, episode).method.startswith("Fisher")
    assert st.pearson_interval(x[:5], y[:5], episode[:5]).bounds == [-1, 1]
    assert np.isnan(st.mean_interval(x[:5, 0], episode[:5]).bounds).all()


def test_auroc_equals_brute_force_with_ties():
    rng = np.random.default_rng(5)
    positive, negative = rng.integers(0, 6, 31).astype(float), rng.integers(0, 5, 17).astype(float)
    brute = np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p in positive for q in negative])
    assert st.auroc(positive, negative) == pytest.approx(brute)
    assert st.wins(positive, negative).mean() == pytest.approx(brute)


def test_auroc_bootstrap_equals_a_naive_loop_over_groups():
    rng = np.random.default_rng(6)
    group = np.repeat(np.arange(30), 2)
    base = rng.normal(size=30)[group]
    positive, negative = base + 0.7 + 0.5 * rng.normal(size=60), base + 0.5 * rng.normal(size=60)
    naive = []  # of logit AUROC
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(group == g) for g in rng.integers(30, size=30)])
        naive.append(special.logit(st.auroc(positive[rows], negative[rows])))
    half = stats.t.ppf(0.975, 29) * np.std(naive, ddof=1)
    expected = special.expit(special.logit(st.auroc(positive, negative)) + np.array([-half, half]))
    assert np.allclose(st.auroc_interval(positive, negative, group).bounds, expected, atol=0.02)


@pytest.mark.parametrize(("num", "shared"), [(20, 0.0), (20, 0.5), (30, 0.5)])
def test_auroc_interval_covers_the_truth_about_as_often_as_it_says(num, shared):
    # Scores of a pair have the correlation `shared`; P(positive > another's negative) = Phi(shift / sqrt 2) = 0.9.
    rng, hits, shift = np.random.default_rng(8), 0, stats.norm.ppf(0.9) * 2**0.5
    for _ in range(300):
        base = shared**0.5 * rng.normal(size=num)
        positive, negative = (base + (1 - shared) ** 0.5 * rng.normal(size=num) for _ in range(2))
        low, high, _ = st.auroc_interval(positive + shift, negative, np.arange(num))
        assert low <= st.auroc(positive + shift, negative) <= high
        hits += low <= 0.9 <= high
    assert 0.91 <= hits / 300 <= 0.99


@pytest.mark.parametrize("num", [20, 28])
def test_pearson_interval_covers_the_truth_about_as_often_as_it_says(num):
    # Four fifths of the variance of x and of the error are the episode's.
    rng, hits = np.random.default_rng(9), 0
    episode = np.repeat(np.arange(num), 10)
    for _ in range(300):
        x, error = (
            0.8**0.5 * rng.normal(size=(num, 1))[episode] + 0.2**0.5 * rng.normal(size=(len(episode), 1))
            for _ in range(2)
        )
        low, high, _ = st.pearson_interval(x, 0.9 * x + 0.19**0.5 * error, episode)
        hits += low <= 0.9 <= high
    assert 0.91 <= hits / 300 <= 0.99


def test_an_estimate_at_or_near_its_bound_is_inside_its_interval():
    x, _, episode = correlated(np.random.default_rng(10))
    assert st.pearson_interval(x, x, episode).bounds == pytest.approx([1, 1])
    positive, negative = np.arange(40.0) + 39.5, np.arange(40.0)  # one lost pair of 1600
    low, high, _ = st.auroc_interval(positive, negative, np.arange(40))
    assert 0.9 < low <= st.auroc(positive, negative) <= high <= 1


def test_auroc_interval_does_not_collapse_where_all_resamples_agree():
    perfect = st.auroc_interval(np.arange(20) + 100.0, np.arange(20.0), np.arange(20))
    assert perfect.high == 1
    assert perfect.low == pytest.approx(0.025 ** (1 / 20))
    scores = np.arange(40.0)
    tied = st.auroc_interval(scores, scores, np.arange(40))  # every pair ties, though pairs differ
    assert tied.low < 0.4 < 0.6 < tied.high


def test_clopper_pearson_equals_scipys_exact_interval():
    exact = stats.binomtest(7, 20).proportion_ci(method="exact")
    assert np.allclose(st.clopper_pearson(7, 20).bounds, [exact.low, exact.high])


def test_an_interval_of_errors_of_few_episodes_ends_at_zero():
    errors, episode = np.array([0.1, 0.1, 2.0]), np.array([0, 1, 2])
    free, ended = (st.mean_interval(errors, episode, **least) for least in ({}, {"least": 0.0}))
    assert free.low < 0 == ended.low
    assert ended.high == free.high


def test_wilson_interval_equals_scipys():
    for hits in (0, 7, 20):
        wilson = stats.binomtest(hits, 20).proportion_ci(method="wilson")
        assert np.allclose(st.wilson_interval(hits, 20).bounds, [wilson.low, wilson.high])


def test_paired_tests_survive_differences_without_spread():
    assert st.paired_t(np.zeros(5)) == 1
    assert st.paired_t(np.full(5, 0.3)) == 0
    assert st.wilcoxon(np.zeros(5)) == 1
    assert np.isnan(st.paired_t(np.ones(1)))
    assert np.isnan(st.cohens_dz(np.zeros(5)))


def test_paired_tests_equal_scipys_and_tell_a_shift_from_none():
    x, y = np.random.default_rng(7).normal(size=(2, 40))
    assert st.paired_t(x - y) == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert st.paired_t(x - y + 2) < 1e-6
    assert st.wilcoxon(x - y + 2) < 1e-6
    assert st.cohens_dz(x - y) == pytest.approx((x - y).mean() / (x - y).std(ddof=1))


def test_holm_by_hand():
    assert st.holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert np.array_equal(st.holm(np.array([np.nan, 0.02, np.nan, 0.03])), [np.nan, 0.04, np.nan, 0.04], equal_nan=True)


def test_pairs_needed_are_those_with_which_simulated_samples_are_found():
    rng = np.random.default_rng(0)
    assert st.pairs_needed(-1.0) is None  # the other way round
    for effect in (0.4, 1.0, 2.0):
        n = st.pairs_needed(effect)
        shares = [
            (stats.ttest_1samp(rng.normal(effect, 1, (4000, m)), 0.0, axis=1).pvalue < 0.01).mean()
            for m in (n - 2, n, n + 2)
        ]
        assert shares[0] < 0.905 and shares[2] > 0.895 and shares[1] == pytest.approx(0.9, abs=0.06)
    assert st.pairs_needed(0.0) is None and st.pairs_needed(np.nan) is None and st.pairs_needed(1e-4) is None
    assert st.pairs_needed(50.0) <= 3 and st.pairs_needed(np.inf) == 2


def test_an_auroc_of_unequal_groups_resamples_whole_groups():
    # 30 groups: each has one positive and three negatives, shifted together, so that only groups are independent.
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 1, 30)
    positive = shift + rng.normal(1, 1, 30)
    negative = (shift[:, None] + rng.normal(0, 1, (30, 3))).ravel()
    pooled = st.auroc_interval(positive, negative, np.arange(30), np.repeat(np.arange(30), 3))
    assert pooled.low < st.auroc(positive, negative) < pooled.high
    # The same negatives three times tell no more than once.
    once = st.auroc_interval(positive, negative[::3], np.arange(30))
    thrice = st.auroc_interval(positive, np.repeat(negative[::3], 3), np.arange(30), np.repeat(np.arange(30), 3))
    assert thrice.bounds == pytest.approx(once.bounds)


def test_an_auroc_whose_sides_share_no_group_still_has_an_interval():
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(1, 1, 40), rng.normal(0, 1, 25)
    low, high, _ = st.auroc_interval(positive, negative, np.arange(40), 100 + np.arange(25))
    assert 0.5 < low < st.auroc(positive, negative) < high < 1

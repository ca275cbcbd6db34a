import numpy as np
import pytest
from sklearn.linear_model import Ridge

from lewm.probes.linear import STRENGTHS, fit_linear
from lewm.probes.parts import grouped
from lewm.probes.scores import score
from lewm.probes.seams import Rows, Scale
from lewm.probes.statistics import pearson_interval
from lewm.probes.targets import Quantity


def parts(x, y, episode, seed=0):
    """Train, val and test rows of whole episodes."""
    keys = [str(e) for e in range(int(episode.max()) + 1)]
    found = grouped(np.arange(len(keys)), keys, (0.6, 0.2, 0.2), seed)
    masks = [np.isin(episode, part) for part in found]
    return [Rows(x[m], y[m], episode[m]) for m in masks]


def planted(noise=0.0, episodes=60, rows=20, width=16, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(episodes * rows, 2)) * [3.0, 100.0] + [10.0, -5.0]
    x = y / [3.0, 100.0] @ rng.normal(size=(2, width)) + noise * rng.normal(size=(len(y), width))
    return x, y, np.repeat(np.arange(episodes), rows)


def interval(probe, train, rows):
    """Interval of r between what is read and what is true."""
    return pearson_interval(Scale.of(train.y)(rows.y), probe.predict(rows.x), rows.episode)


def r(probe, rows):
    read = probe.predict(rows.x)
    return np.mean([np.corrcoef(rows.y[:, c], read[:, c])[0, 1] for c in range(rows.y.shape[1])])


def mse(probe, train, rows):
    return float(((probe.predict(rows.x) - Scale.of(train.y)(rows.y)) ** 2).mean())


def reference(train, val, x):
    """Strength and predictions of scikit-learn's ridge on features and targets standardised in one piece."""

    def standard(of, values):
        of, values = of.astype(np.float64), values.astype(np.float64)
        std = of.std(axis=0)
        return (values - of.mean(axis=0)) / np.where(std > 1e-8 * (1 + np.abs(of.mean(axis=0))), std, 1.0)

    fitted, errors = [], []
    for strength in STRENGTHS:
        ridge = Ridge(alpha=strength, solver="cholesky").fit(standard(train.x, train.x), standard(train.y, train.y))
        guess, true = ridge.predict(standard(train.x, val.x)), standard(train.y, val.y)
        fitted.append(ridge)
        errors.append(((guess.reshape(true.shape) - true) ** 2).mean())
    best = int(np.argmin(errors))
    return STRENGTHS[best], fitted[best].predict(standard(train.x, x)).reshape(len(x), -1)


def odd(x, kind):
    """Features spoilt: `constant`, `collinear` or `far` columns."""
    x = x.copy()
    if kind == "constant":
        x[:, ::3] = 0.1
    if kind == "collinear":
        x[:, 1::2] = x[:, : x.shape[1] // 2]
    if kind == "far":
        x += 1e4
    return x


SHAPES = [(600, 16, 2), (600, 1, 1), (600, 64, 1), (40, 100, 3), (90, 90, 2), (3, 5, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["plain", "constant", "collinear", "far"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [7, 4096])
def test_the_probe_equals_scikit_learns_ridge_of_each_strength(monkeypatch, shape, kind, dtype, block):
    monkeypatch.setattr(Scale, "BLOCK", block)
    n, d, c = shape
    rng = np.random.default_rng(n + d)
    x = odd(rng.normal(size=(3 * n, d)), kind).astype(dtype)
    y = (x - x.mean(axis=0)) @ rng.normal(size=(d, c)) / d**0.5 + 0.5 * rng.normal(size=(3 * n, c)) + 7
    train, val, test = (Rows(x[i], y[i], np.arange(n)) for i in np.arange(3 * n).reshape(3, n))
    probe = fit_linear(train, val)
    strength, expected = reference(train, val, test.x)
    found = probe.predict(test.x)
    assert found.dtype == np.float64
    assert probe.strength == strength
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * max(expected.std(), 1e-3))


def test_blocks_do_not_matter(monkeypatch):
    train, val, test = parts(*planted(noise=3.0, width=64))
    whole = fit_linear(train, val)
    expected = whole.predict(test.x)
    monkeypatch.setattr(Scale, "BLOCK", 7)
    probe = fit_linear(train, val)
    assert probe.strength == whole.strength
    np.testing.assert_allclose(probe.predict(test.x), expected, rtol=1e-10, atol=1e-12)


def test_a_far_feature_gives_the_predictions_of_a_near_one():
    # Mean 1e4 and std 1: X'X of the raw values, about 1e8 a row, would leave half of the 16 digits.
    x, y, episode = planted(noise=1.0)
    far = x + 1e4
    train, val, test = parts(far - 1e4, y, episode)  # what adding 1e4 rounded away is lost to both
    expected = fit_linear(train, val).predict(test.x)
    train, val, test = parts(far, y, episode)
    np.testing.assert_allclose(fit_linear(train, val).predict(test.x), expected, rtol=0, atol=1e-11)


def test_of_strengths_that_tie_the_smaller_is_taken():
    x, _, episode = planted()
    train, val, _ = parts(x, np.full((len(x), 1), 0.1), episode)  # nothing to predict: every strength gives 0
    probe = fit_linear(train, val, (10.0, 0.1, 1.0))
    assert probe.strength == 0.1
    assert not probe.predict(val.x).any()


def test_the_intercept_is_not_penalised():
    x, y, episode = planted(noise=1.0)
    train, val, _ = parts(x, y, episode)
    probe = fit_linear(train, val, (1e12,))
    np.testing.assert_allclose(Scale.of(train.y).undo(probe.predict(train.x)).mean(axis=0), train.y.mean(axis=0))


@pytest.mark.parametrize("where", ["x", "y"])
def test_training_rows_that_are_not_finite_are_refused(where):
    x, y, episode = planted()
    train, val, _ = parts(x, y, episode)
    getattr(train, where)[5, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_linear(train, val)


def test_predicting_no_rows_gives_none():
    train, val, _ = parts(*planted())
    assert fit_linear(train, val).predict(val.x[:0]).shape == (0, 2)


def test_linear_probe_finds_a_planted_linear_code():
    train, val, test = parts(*planted(noise=0.01))
    probe = fit_linear(train, val)
    assert interval(probe, train, test).low > 0.999
    assert mse(probe, train, test) < 1e-3


def test_linear_probe_finds_nothing_in_noise():
    x, y, episode = planted()
    train, val, test = parts(np.random.default_rng(1).normal(size=x.shape), y, episode)
    probe = fit_linear(train, val)
    low, high, _ = interval(probe, train, test)
    assert abs(r(probe, test)) < 0.2
    assert low < 0.15 and high > -0.15
    assert 0.8 < mse(probe, train, test) < 1.3


def test_strength_is_the_one_that_is_best_on_validation():
    x, y, episode = planted(noise=3.0, width=64)
    train, val, _ = parts(x, y, episode)
    chosen = fit_linear(train, val)
    errors = {s: mse(fit_linear(train, val, (s,)), train, val) for s in STRENGTHS}
    assert errors[chosen.strength] <= min(errors.values()) + 1e-12
    assert 1e-3 < chosen.strength < 1e5  # so the choice is seen


def test_a_label_per_episode_does_not_leak_through_an_episode_split():
    # Features name the episode exactly; the label is random for each. A split over frames would reach r = 1.
    rng = np.random.default_rng(3)
    episode = np.repeat(np.arange(150), 20)
    x = rng.normal(size=(150, 32))[episode] + 0.05 * rng.normal(size=(len(episode), 32))
    y = rng.normal(size=(150, 1))[episode]
    train, val, test = parts(x, y, episode)
    low, high, _ = interval(fit_linear(train, val), train, test)
    assert low <= 0 <= high

    by_frame = rng.permutation(len(x))
    train, val, test = (Rows(x[i], y[i], episode[i]) for i in np.split(by_frame, [1800, 2400]))
    assert r(fit_linear(train, val), test) > 0.3  # the test would see a leak


def plain_score(true, read, episode):
    """Scores of numbers that are standardised already."""
    width = true.shape[1]
    quantity = Quantity(name="q", column="q", slice=(0, width))
    return score(quantity, Scale(np.zeros(width), np.ones(width)), true, read, episode)


def test_predicting_the_mean_has_mse_one_and_no_r():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(2000, 3))
    scores = plain_score(true, np.zeros_like(true), np.repeat(np.arange(40), 50))
    assert scores["mse"] == pytest.approx(1, abs=0.06)
    assert np.isnan(scores["r"])
    assert scores["r2"] == pytest.approx(0, abs=0.01)


def test_scores_equal_their_definitions():
    rng = np.random.default_rng(5)
    true = rng.normal(size=(500, 2))
    guess = true + rng.normal(size=(500, 2)) * [0.1, 1.0]
    scores = plain_score(true, guess, np.repeat(np.arange(25), 20))
    each = ((true - guess) ** 2).mean(1)
    assert scores["mse"] == pytest.approx(each.mean())
    assert scores["mse_std"] == pytest.approx(each.std())
    assert scores["r"] == pytest.approx(np.mean([np.corrcoef(true[:, c], guess[:, c])[0, 1] for c in range(2)]))
    expected = np.mean([1 - ((true - guess)[:, c] ** 2).mean() / true[:, c].var() for c in range(2)])
    assert scores["r2"] == pytest.approx(expected)

import numpy as np
import pytest

from lewm.probes.linear import fit_linear
from lewm.probes.parts import grouped
from lewm.probes.scores import score, score_probe
from lewm.probes.seams import Rows


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


def test_linear_probe_finds_a_planted_linear_code():
    train, val, test = parts(*planted(noise=0.01))
    scores = score_probe(fit_linear(train, val), train, test, components=["x", "y"])
    assert scores["r"] > 0.999
    assert scores["mse"] < 1e-3
    assert scores["r_ci95"][0] > 0.999
    assert [c["name"] for c in scores["per_component"]] == ["x", "y"]


def test_linear_probe_finds_nothing_in_noise():
    x, y, episode = planted()
    train, val, test = parts(np.random.default_rng(1).normal(size=x.shape), y, episode)
    scores = score_probe(fit_linear(train, val), train, test, components=["x", "y"])
    low, high = scores["r_ci95"]
    assert abs(scores["r"]) < 0.2
    assert low < 0.15 and high > -0.15
    assert 0.8 < scores["mse"] < 1.3


def test_strength_is_the_one_that_is_best_on_validation():
    x, y, episode = planted(noise=3.0, width=64)
    train, val, _ = parts(x, y, episode)
    chosen = fit_linear(train, val)

    def error(strength):
        return float(((fit_linear(train, val, (strength,)).predict(val.x) - standard(train, val.y)) ** 2).mean())

    assert error(chosen.strength) <= min(error(s) for s in (1e-3, 1.0, 1e2, 1e5)) + 1e-12


def standard(train, y):
    return (y - train.y.mean(0)) / train.y.std(0)


def test_a_label_per_episode_does_not_leak_through_an_episode_split():
    # Features name the episode exactly; the label is random for each. A split over frames would reach r = 1.
    rng = np.random.default_rng(3)
    episode = np.repeat(np.arange(150), 20)
    x = rng.normal(size=(150, 32))[episode] + 0.05 * rng.normal(size=(len(episode), 32))
    y = rng.normal(size=(150, 1))[episode]
    train, val, test = parts(x, y, episode)
    scores = score_probe(fit_linear(train, val), train, test, components=["0"])
    assert scores["r_ci95"][0] <= 0 <= scores["r_ci95"][1] or np.isnan(scores["r"])

    by_frame = rng.permutation(len(x))
    leaking = [Rows(x[i], y[i], episode[i]) for i in np.split(by_frame, [1800, 2400])]
    leaked = score_probe(fit_linear(*leaking[:2]), leaking[0], leaking[2], components=["0"])
    assert leaked["r"] > 0.3  # the test would see a leak


def test_predicting_the_mean_has_mse_one_and_no_r():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(2000, 3))
    scores = score(true, np.zeros_like(true), np.repeat(np.arange(40), 50), components=["a", "b", "c"])
    assert scores["mse"] == pytest.approx(1, abs=0.06)
    assert np.isnan(scores["r"])
    assert scores["r2"] == pytest.approx(0, abs=0.01)


def test_scores_equal_their_definitions():
    rng = np.random.default_rng(5)
    true = rng.normal(size=(500, 2))
    guess = true + rng.normal(size=(500, 2)) * [0.1, 1.0]
    scores = score(true, guess, np.repeat(np.arange(25), 20), components=["a", "b"])
    each = ((true - guess) ** 2).mean(1)
    assert scores["mse"] == pytest.approx(each.mean())
    assert scores["mse_std"] == pytest.approx(each.std())
    assert scores["r"] == pytest.approx(np.mean([np.corrcoef(true[:, c], guess[:, c])[0, 1] for c in range(2)]))
    expected = np.mean([1 - ((true - guess)[:, c] ** 2).mean() / true[:, c].var() for c in range(2)])
    assert scores["r2"] == pytest.approx(expected)

"""Do the probes find what was planted, and only that? The full counts: pytest -m slow tests/test_planted.py -s."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lewm.datasets.split import PARTS, episodes_of
from lewm.probes.linear import fit_linear
from lewm.probes.mlp import fit_mlp
from lewm.probes.seams import Probe, Rows, Scale
from lewm.probes.statistics import Interval, fisher_interval, pearson_interval

Fit = Callable[[Rows, Rows], Probe]
Parts = list[Rows]  # train, val, test

NOISE = ["smooth noise", "white noise"]
TRIALS = [  # probe, number of seeds, fewest in which the interval of a true r of 0 must hold it
    pytest.param(fit_linear, 20, 17, id="linear"),
    pytest.param(fit_mlp, 1, 1, id="mlp"),
    pytest.param(fit_linear, 100, 89, id="linear-in-full", marks=pytest.mark.slow),
    pytest.param(fit_mlp, 100, 89, id="mlp-in-full", marks=pytest.mark.slow),
]
LENGTHS = np.arange(10, 61)  # frames of an episode in the trial of coverage, all equally likely


def smooth(rng: np.random.Generator, lengths: np.ndarray, columns: int) -> np.ndarray:
    """One row a frame: an offset for each episode, and a random walk pulled back to it, each half of the variance 1."""
    walk = rng.normal(size=(len(lengths), lengths.max(), columns))
    for t in range(1, walk.shape[1]):
        walk[:, t] = 0.9 * walk[:, t - 1] + (1 - 0.9**2) ** 0.5 * walk[:, t]
    offset = rng.normal(size=(len(lengths), 1, columns))
    return (0.5**0.5 * (offset + walk))[np.arange(lengths.max()) < lengths[:, None]]


def split(rows: Rows, unit: np.ndarray, seed: int) -> Parts:
    """The project's split, over whatever `unit` numbers: it must be whole episodes."""
    keys = [str(u) for u in range(unit.max() + 1)]
    masks = [np.isin(unit, episodes_of(part, seed, keys)) for part in PARTS]
    return [Rows(rows.x[m], rows.y[m], rows.episode[m]) for m in masks]


def planted(seed: int) -> dict[str, Parts]:
    """Embeddings that mix three latents, and quantities by name; 90 episodes in train, 30 in val, 60 in test.

    The latents z are normal, so every product of three of them has mean 0: no linear map of z says anything of z0 z1.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 21, size=180)
    episode = np.repeat(np.arange(180), lengths)
    z = smooth(rng, lengths, 3)
    x = z @ rng.normal(size=(3, 32)) + 0.05 * rng.normal(size=(len(z), 32))
    quantities = {
        "linear": z @ rng.normal(size=(3, 1)),
        "product": z[:, :1] * z[:, 1:2],
        "smooth noise": smooth(rng, lengths, 1),
        "white noise": rng.normal(size=(len(z), 1)),
    }
    masks = [episode < 90, (episode >= 90) & (episode < 120), episode >= 120]
    return {name: [Rows(x[m], y[m], episode[m]) for m in masks] for name, y in quantities.items()}


def labelled(seed: int) -> Rows:
    """500 episodes of 6 frames: the embedding tells the episode, whose label is random."""
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(500), 6)
    x = rng.normal(size=(500, 32))[episode] + 0.3 * rng.normal(size=(len(episode), 32))
    return Rows(x, rng.normal(size=(500, 1))[episode], episode)


def correlated(rng: np.random.Generator, episodes: int, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose pooled r is exactly `rho` for each component, and the episode of each row.

    y = rho x + sqrt(1 - rho^2) w e, where w^2 = E[L] / L in an episode of L frames, so errors are larger in short ones.
    Over frames w e has variance E[L w^2] / E[L] = 1, as x has, so r = rho; if each episode weighed the same, r would be
    smaller.
    """
    lengths = rng.choice(LENGTHS, size=episodes)
    episode = np.repeat(np.arange(episodes), lengths)
    x, error = (smooth(rng, lengths, len(rho)) for _ in range(2))
    w = (LENGTHS.mean() / lengths)[episode, None] ** 0.5
    return x, rho * x + (1 - rho**2) ** 0.5 * w * error, episode


def mean_r(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean over components of the pooled r."""
    covariances = [np.cov(*pair, aweights=weights) for pair in zip(x.T, y.T, strict=True)]
    return float(np.mean([c[0, 1] / (c[0, 0] * c[1, 1]) ** 0.5 for c in covariances]))


def probed(fit: Fit, parts: Parts) -> tuple[float, Interval, Interval]:
    """r on test, its interval, and the interval that takes frames as independent."""
    train, val, test = parts
    true, guess = Scale.of(train.y)(test.y), fit(train, val).predict(test.x)
    r = mean_r(true, guess)
    return r, pearson_interval(true, guess, test.episode), fisher_interval(r, len(true))


def count(intervals: list[Interval], true: float = 0.0) -> int:
    return sum(i.low <= true <= i.high for i in intervals)


@pytest.mark.parametrize("num", [1, pytest.param(100, id="in-full", marks=pytest.mark.slow)])
def test_the_linear_probe_finds_a_linear_map_alone_and_the_mlp_a_product_too(num):
    cases = [planted(seed) for seed in range(num)]
    r = {
        (fit.__name__, name): np.array([probed(fit, parts[name])[0] for parts in cases])
        for fit in (fit_linear, fit_mlp)
        for name in ("linear", "product")
    }
    for (fit, name), found in r.items():
        print(f"\nplanted {name}, {fit}, {num} seeds: r {found.min():.4f} to {found.max():.4f}", end="")
    assert r["fit_linear", "linear"].min() > 0.95
    assert r["fit_mlp", "linear"].min() > 0.95
    assert r["fit_mlp", "product"].min() > 0.9
    assert abs(r["fit_linear", "product"]).max() < 0.5


@pytest.mark.parametrize(("fit", "num", "fewest"), TRIALS)
@pytest.mark.parametrize("name", NOISE)
def test_noise_is_not_found(name, fit, num, fewest):
    held = count([probed(fit, planted(seed)[name])[1] for seed in range(num)])
    print(f"\n{name}, {fit.__name__}: the interval of r holds 0 in {held} of {num} seeds", end="")
    assert held >= fewest


@pytest.mark.parametrize("num", [20, pytest.param(100, id="in-full", marks=pytest.mark.slow)])
def test_a_product_is_noise_to_the_linear_probe(num):
    found = [probed(fit_linear, planted(seed)["product"]) for seed in range(num)]
    held, size = count([interval for _, interval, _ in found]), np.mean([abs(r) for r, _, _ in found])
    print(f"\nproduct, fit_linear: the interval of r holds 0 in {held} of {num} seeds; mean |r| {size:.3f}", end="")
    assert held >= (0.89 if num == 100 else 0.8) * num
    assert size < 0.2


@pytest.mark.parametrize("num", [20, pytest.param(100, id="in-full", marks=pytest.mark.slow)])
def test_smooth_noise_would_be_found_if_frames_were_taken_as_independent(num):
    held = count([probed(fit_linear, planted(seed)["smooth noise"])[2] for seed in range(num)])
    print(f"\nsmooth noise, fit_linear: an interval over frames holds 0 in {held} of {num} seeds", end="")
    assert held < 0.8 * num


def test_the_r_that_coverage_is_measured_against_is_the_one_over_frames():
    rho = np.array([0.3, 0.7])
    x, y, episode = correlated(np.random.default_rng(0), 20_000, rho)
    by_episode = 1 / np.bincount(episode)[episode]
    assert mean_r(x, y) == pytest.approx(0.5, abs=0.01)
    assert mean_r(x, y, by_episode) < 0.475


@pytest.mark.parametrize(
    ("num", "least", "most"),
    [(100, 0.88, 0.99), pytest.param(1000, 0.90, 0.98, id="in-full", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("rho", [(-0.2, 0.2), (0.3, 0.7), (0.93, 0.97)], ids=["r 0", "r 0.5", "r 0.95"])
def test_the_interval_of_r_covers_the_truth_as_often_as_it_says(rho, num, least, most):
    true, over_episodes, over_frames = float(np.mean(rho)), [], []
    for seed in range(num):
        x, y, episode = correlated(np.random.default_rng([1, seed]), 50, np.array(rho))
        over_episodes.append(pearson_interval(x, y, episode))
        over_frames.append(fisher_interval(mean_r(x, y), len(x)))
    held, naive = count(over_episodes, true), count(over_frames, true)
    print(f"\nr {true:.2f}, 50 episodes: held in {held} of {num} seeds; by an interval over frames in {naive}", end="")
    assert least <= held / num <= most
    assert naive / num < 0.8


@pytest.mark.parametrize(("fit", "num", "fewest"), TRIALS)
def test_a_random_label_of_each_episode_is_not_found_by_a_split_over_episodes(fit, num, fewest):
    cases = [split(rows, rows.episode, seed) for seed, rows in enumerate(map(labelled, range(num)))]
    held = count([probed(fit, parts)[1] for parts in cases])
    sizes = [len(np.unique(parts[2].episode)) for parts in cases]
    print(
        f"\nlabel of an episode, {fit.__name__}: the interval of r holds 0 in {held} of {num} seeds "
        f"({min(sizes)} to {max(sizes)} test episodes)",
        end="",
    )
    assert held >= fewest


@pytest.mark.parametrize("num", [1, pytest.param(100, id="in-full", marks=pytest.mark.slow)])
def test_a_random_label_of_each_episode_leaks_through_a_split_over_clips(num):
    clip = np.arange(500 * 6) // 2  # two frames each
    r = np.array([probed(fit_mlp, split(labelled(seed), clip, seed))[0] for seed in range(num)])
    print(f"\nlabel of an episode, fit_mlp, split over clips: r above 0.5 in {(r > 0.5).sum()} of {num}", end="")
    assert r.min() > 0.5

"""Intervals of a planning result: they hold what they say, near 0 and 1 as well."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lewm.probes import plan_scores as scores
from lewm.probes.statistics import wilson_interval


def outcome(solved, only, other, none):
    """Pairs solved by both, by the first alone, by the second alone, by none."""
    first = np.repeat([True, True, False, False], [solved, only, other, none])
    second = np.repeat([True, False, True, False], [solved, only, other, none])
    return first[None], second[None], np.arange(len(first))


@pytest.mark.parametrize("hits", [0, 1, 3, 15, 29, 30])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_successs_interval_is_never_narrower_than_wilsons(hits, seeds):
    solved = np.tile(np.arange(30) < hits, (seeds, 1))
    found = scores.success(solved, np.arange(30))
    low, high = found["ci95"]
    own = wilson_interval(hits, 30)
    assert low <= own.low and high >= own.high and "Wilson" in found["method"]


def test_several_pairs_of_an_episode_are_one_group():
    solved = np.tile(np.arange(10) < 5, (1, 4))
    found = scores.success(solved, np.arange(40) % 10)
    own = wilson_interval(5, 10)
    assert found["ci95"][0] <= own.low and found["ci95"][1] >= own.high


def test_newcombes_interval_is_that_of_his_example_and_by_hand_where_all_differ():
    first, second, _ = outcome(36, 12, 2, 0)
    found = scores.newcombe(first[0], second[0])
    assert found.bounds == pytest.approx([0.0569, 0.3404], abs=1e-4), "Newcombe 1998, first row of table II"
    assert scores.newcombe(second[0], first[0]).bounds == pytest.approx([-0.3404, -0.0569], abs=1e-4)
    first, second, _ = outcome(0, 50, 0, 0)  # phi is 0, and Wilson's l1 = n / (n + z^2) = 1 - u2
    half = 2**0.5 * 1.959964**2 / (50 + 1.959964**2)
    assert scores.newcombe(first[0], second[0]).bounds == pytest.approx([1 - half, 1.0])


def test_equal_outcomes_leave_a_difference_possible():
    found = scores.difference(*outcome(15, 0, 0, 15))
    assert found["mean"] == 0 and found["ci95"][0] < -0.02 and found["ci95"][1] > 0.02


@pytest.mark.parametrize("hits", [0, 1, 2, 298, 299, 300])
def test_less_evidence_never_gives_a_narrower_interval_near_0_and_1(hits):
    solved, floor = (np.arange(300) < hits).reshape(3, 100), np.zeros((3, 100), bool)
    low, high = scores.difference(solved, floor, np.arange(100))["ci95"]
    own = scores._wilson(hits / 300, 100)
    assert high - low >= own.high - own.low and low <= own.low and high >= own.high


def test_the_sign_test_is_exact_and_over_pairs_that_differ():
    found = scores.difference(*outcome(10, 9, 1, 20))
    assert found["p_sign"] == pytest.approx(2 * (1 + 10) / 2**10) and (found["better"], found["worse"]) == (9, 1)
    assert scores.difference(*outcome(10, 0, 0, 20))["p_sign"] == 1
    first, second, labels = outcome(10, 9, 1, 20)
    # three equal seeds are no more pairs than one; nor are three pairs of an episode
    assert scores.difference(*(np.tile(x, (3, 1)) for x in (first, second)), labels)["p_sign"] == found["p_sign"]
    thrice = scores.difference(np.tile(first, 3), np.tile(second, 3), np.tile(labels, 3))
    assert thrice["p_sign"] == found["p_sign"] and thrice["method"] != found["method"]


@cache
def intervals(solved: bytes, floor: bytes, seeds: int):
    rows = [np.frombuffer(x, bool).reshape(seeds, -1) for x in (solved, floor)]
    labels = np.arange(rows[0].shape[1])
    return scores.success(rows[0], labels)["ci95"], scores.difference(*rows, labels)["ci95"]


@pytest.mark.parametrize(
    ("seeds", "p", "q", "num", "times"),
    [
        (1, 0.97, 0.02, 30, 2000),  # Wilson's own is 94 % here
        (1, 0.5, 0.1, 30, 1000),
        (1, 0.95, 0.9, 100, 1000),
        (1, 0.06, 0.02, 100, 1000),
        (3, 0.97, 0.02, 30, 300),
        (3, 0.5, 0.1, 30, 300),
        (3, 0.06, 0.02, 100, 150),
    ],
)
def test_intervals_hold_the_truth_in_at_least_93_percent(seeds, p, q, num, times):
    """Half of the pairs are easier than the mean, the others harder; the same draws at every run."""
    rng = np.random.default_rng(0)
    hard = 0.5 * min(p, 1 - p) * np.where(np.arange(num) % 2, 1, -1)
    held = np.zeros(2)
    for _ in range(times):
        solved, floor = rng.random((seeds, num)) < p + hard, rng.random((seeds, num)) < q
        order = np.lexsort([*solved, *floor, solved.sum(axis=0) - floor.sum(axis=0)])
        rate, difference = intervals(solved[:, order].tobytes(), floor[:, order].tobytes(), seeds)
        held += rate[0] <= p <= rate[1], difference[0] <= p - q <= difference[1]
    assert (held / times >= 0.93).all(), held / times

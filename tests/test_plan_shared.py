"""Copies of episodes are found by their actions, and what is no copy is not."""

from __future__ import annotations

import numpy as np
import pytest

from lewm.probes.plan_shared import copies


def policy(seed, rows=60, dims=2):
    return np.random.default_rng(seed).normal(size=(rows, dims)).astype(np.float32)


OTHERS = [policy(i) for i in range(20)]


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        (OTHERS[3], True),
        (OTHERS[3][:20], True),
        (OTHERS[3][31:], True),
        (OTHERS[3][20:30], True),
        (OTHERS[3][:6], True),  # five actions and the last row, which has none
        (OTHERS[3][:5], None),
        (policy(99), False),
        (np.concatenate([OTHERS[3][:7], policy(99)]), False),  # seven rows
        (np.concatenate([policy(98), OTHERS[3][:8], policy(99)]), True),
        (np.nextafter(OTHERS[3], np.float32(9)), False),
    ],
)
def test_eight_rows_of_actions_in_common_are_a_copy(own, shared):
    assert copies([own], OTHERS) == [shared]
    assert copies([policy(97), own], OTHERS[::-1]) == [False, shared]
    assert copies([own], OTHERS[5:])[0] is not True


def test_runs_that_any_policy_makes_are_no_copy():
    held = [np.concatenate([x[:20], np.ones((20, 2), np.float32), x[20:]]) for x in OTHERS]
    for own in (np.ones((60, 2), np.float32), np.concatenate([policy(97), np.ones((60, 2), np.float32)])):
        assert copies([own], held) == [False], "constant, at the bound"
    few = [np.sign(x) for x in OTHERS]  # four actions: 1200 rows hold most runs of changes by chance
    assert copies([np.sign(policy(98, rows=2000))], few) == [False]


def test_the_last_row_which_has_no_valid_action_does_not_count():
    own = OTHERS[3][:9].copy()
    own[-1] = np.nan
    assert copies([own], OTHERS) == [True]
    assert copies([own[:-1]], OTHERS) == [True], "seven rows are all there are"
    assert copies([], OTHERS) == [] and copies([own], []) == [False]


def held(seed, steps, rows=121, dims=2, values=None):
    """Actions held for some steps, the first for a part of them."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(rows, dims)) if values is None else rng.choice(values, size=(rows, dims))
    shift = rng.integers(steps)
    return np.repeat(drawn, steps, axis=0)[shift : shift + rows].astype(np.float32)


@pytest.mark.parametrize("steps", [4, 5, 6, 8, 15])
def test_copies_of_episodes_whose_actions_are_held_are_found(steps):
    others = [held(i, steps) for i in range(200)]
    own = [others[7 * i] for i in range(18)] + [others[5][30:], others[5][:90]]
    assert copies(own, others) == [True] * 20
    assert copies([held(1000 + i, steps) for i in range(20)], others) == [False] * 20


@pytest.mark.parametrize("steps", [1, 4])
def test_of_actions_of_two_values_copies_are_found_or_cannot_be_told(steps):
    others = [held(i, steps, dims=1, values=(-1.0, 1.0)) for i in range(200)]
    found = copies(others[:20], others)
    assert False not in found and (steps > 1 or found == [True] * 20)
    assert copies([held(1000 + i, steps, dims=1, values=(-1.0, 1.0)) for i in range(20)], others) == [False] * 20


def test_what_all_episodes_repeat_is_no_copy_however_long():
    waves = [np.tile(np.repeat((-1.0, 1.0), k), 200)[i : i + 121, None] for k in (1, 2, 6) for i in range(4)]
    assert set(copies([waves[0], waves[5], waves[9]], waves)) == {None}
    assert copies([np.ones((60, 2))], [np.ones((60, 2))]) == [None]
    short = [np.repeat(policy(i, rows=2), 4, axis=0) for i in range(9)]
    assert copies(short[:1], short) == [None], "seven rows, two actions"

"""What counts as solved in Reacher, under each protocol, and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lewm.envs.reacher_rules import FORE, UPPER, fingertip
from lewm.envs.rules import rules_of

GOAL = np.array((0.7, 1.1, 0.3, -0.2))


def verdicts(protocol, states, goal=GOAL):
    judge = rules_of("reacher", protocol).judge(np.asarray(goal))
    return [judge.see(np.asarray(state)) for state in states]


def moved(shoulder=0.0, wrist=0.0):
    return GOAL + np.array((shoulder, wrist, 5.0, 5.0))  # velocities are no matter


def test_the_fingertip_is_where_the_file_has_it():
    with np.load(Path(__file__).parent / "data" / "reacher_excerpt.npz") as file:
        found = np.stack([fingertip(q) for q in file["qpos"]])
        np.testing.assert_allclose(found, file["finger_pos"], rtol=0, atol=1e-6)


def test_known_postures():
    np.testing.assert_allclose(fingertip(np.array((0.0, 0.0))), (0.24, 0.0), atol=1e-12)
    np.testing.assert_allclose(fingertip(np.array((np.pi / 2, -np.pi / 2))), (0.12, 0.12), atol=1e-12)


@pytest.mark.parametrize("away", [0.0099, 0.0101])
def test_strict_is_a_centimetre_of_the_fingertip_held_for_two_states(away):
    turn = 2 * np.arcsin(away / 2 / np.hypot(*fingertip(GOAL)))  # of the shoulder alone: a chord of that length
    inside = away < 0.01
    assert verdicts("strict", [moved(turn)] * 3) == [False, inside, inside]
    assert not any(verdicts("strict", [moved(turn), moved(1.0)] * 3))


def test_strict_does_not_ask_for_the_posture():
    state = np.array((GOAL[0] + GOAL[1], -GOAL[1], 0, 0))  # the elbow on the other side
    assert UPPER == FORE
    np.testing.assert_allclose(fingertip(state), fingertip(GOAL), atol=1e-12)
    assert verdicts("strict", [state, state])[-1] and not verdicts("moderate", [state])[-1]


@pytest.mark.parametrize("protocol", ["moderate", "paper"])
def test_the_larger_joint_error_counts_and_the_first_hit_stays(protocol):
    assert verdicts(protocol, [moved(0.051), moved(0, 0.051), moved(0.04, -0.04), moved(1, 1)]) == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("turns", [-2, 1])
def test_a_full_turn_of_the_shoulder_is_the_same_posture_but_for_the_paper(turns):
    state = moved(0.04 + 2 * np.pi * turns)
    assert verdicts("moderate", [state]) == [True] and verdicts("strict", [moved(2 * np.pi * turns)] * 2)[-1]
    assert verdicts("paper", [state]) == [False]


def test_a_full_turn_of_the_wrist_is_not():
    assert verdicts("moderate", [moved(0, 2 * np.pi)]) == [False]


def test_rollouts_start_at_rest_but_for_the_paper():
    for protocol in ("strict", "moderate"):
        np.testing.assert_array_equal(rules_of("reacher", protocol).start(GOAL), (0.7, 1.1, 0, 0))
    np.testing.assert_array_equal(rules_of("reacher", "paper").start(GOAL), GOAL)
    assert GOAL[2] == 0.3, "a start is a copy"


def test_pairs_that_ask_for_nothing_and_the_distance():
    rules = rules_of("reacher", "strict")
    assert rules.reason(moved(0.01), GOAL) == "solved_at_start" and rules.reason(moved(1.0), GOAL) is None
    assert rules.distance(np.zeros(4), np.array((np.pi, 0, 0, 0))) == pytest.approx(0.48)
    assert sum(n or 0 for n in rules.columns.values()) == len(GOAL)

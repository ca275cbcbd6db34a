"""What counts as solved in Push-T under each protocol, and which pairs ask for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from lewm.envs.restored import restored_world
from lewm.envs.rules import rules_of
from lewm.errors import UserError

GOAL = np.array((100.0, 120.0, 300.0, 280.0, 0.05, 30.0, -20.0))
DEGREE = np.pi / 180


def changed(**by) -> np.ndarray:
    """The goal's state with some numbers moved."""
    places = {"agent": 0, "x": 2, "y": 3, "angle": 4, "velocity": 5}
    state = GOAL.copy()
    for name, value in by.items():
        state[places[name]] += value
    return state


def held(protocol, *states) -> list[bool]:
    judge = rules_of("push_t", protocol).judge(GOAL)
    return [judge.see(state) for state in states]


@pytest.mark.parametrize("by", [{"x": 9.9}, {"y": -9.9}, {"angle": 9.9 * DEGREE}, {"agent": 300.0}, {"velocity": 90.0}])
def test_strict_asks_for_the_block_alone(by):
    assert held("strict", *[changed(**by)] * 3) == [False, False, True]


@pytest.mark.parametrize("by", [{"x": 10.1}, {"x": 8.0, "y": 8.0}, {"angle": 10.1 * DEGREE}, {"angle": -10.1 * DEGREE}])
def test_strict_is_not_met_beyond_10_units_or_10_degrees(by):
    assert not any(held("strict", *[changed(**by)] * 5))


def test_strict_is_held_three_states_in_a_row():
    here, away = GOAL, changed(x=50.0)
    assert held("strict", here, here, away, here, here, away) == [False] * 6
    assert held("strict", away, here, here, here, away) == [False, False, False, True, True]


@pytest.mark.parametrize("protocol", ["moderate", "paper"])
def test_the_others_ask_for_agent_and_block_together_at_the_first_hit(protocol):
    assert held(protocol, changed(x=50.0), changed(x=19.9), changed(x=50.0)) == [False, True, True]
    assert held(protocol, changed(agent=19.9)) == [True]
    assert held(protocol, changed(agent=15.0, x=15.0)) == [False]  # 21.2 together
    assert held(protocol, changed(angle=19.9 * DEGREE)) == [True]
    assert held(protocol, changed(angle=20.1 * DEGREE)) == [False]
    assert held(protocol, changed(velocity=300.0)) == [True]


@pytest.mark.parametrize("protocol", ["strict", "moderate", "paper"])
def test_angles_go_the_shortest_way_round(protocol):
    other_side = changed(angle=-5 * DEGREE)  # below 0, that is nearly a whole turn as worlds give it
    other_side[4] %= 2 * np.pi
    assert other_side[4] > 6 and held(protocol, *[other_side] * 3)[-1]


def test_a_rollout_starts_at_rest_but_under_paper():
    for protocol, velocity in (("strict", (0, 0)), ("moderate", (0, 0)), ("paper", (30, -20))):
        start = rules_of("push_t", protocol).start(GOAL)
        np.testing.assert_array_equal(start, [*GOAL[:5], *velocity])
    assert GOAL[5] == 30  # a copy


def test_distance_is_of_the_block():
    assert rules_of("push_t", "strict").distance(changed(agent=90.0, x=3.0, y=4.0), GOAL) == pytest.approx(5)


def test_pairs_that_ask_for_nothing_or_cannot_be_seen_have_a_reason():
    strict, moderate, paper = (rules_of("push_t", name) for name in ("strict", "moderate", "paper"))
    only_agent = changed(agent=200.0)
    assert strict.reason(only_agent, GOAL) == "solved_at_start"  # its block need not move
    assert moderate.reason(only_agent, GOAL) is None and paper.reason(only_agent, GOAL) is None
    assert moderate.reason(changed(velocity=99.0), GOAL) == "solved_at_start"
    for index in range(4):
        for outside in (-0.1, 512.1):
            unseen = changed(x=60.0)
            unseen[index] = outside
            for pair in ((unseen, GOAL), (GOAL, unseen)):
                assert strict.reason(*pair) == moderate.reason(*pair) == "out_of_view"
                assert paper.reason(*pair) is None
    assert strict.reason(changed(x=60.0), GOAL) is None


def test_states_and_rules_fit_the_world():
    world, rules = restored_world("push_t", image_size=16), rules_of("push_t", "strict")
    world.restore(rules.start(GOAL))
    _, state = world.step(np.zeros(2))
    assert rules.columns == {"state": 7} and len(state) == 7
    assert not rules.condition(GOAL)(state + 11 * (np.arange(7) == 2)) and rules.condition(GOAL)(state)


def test_nearness_of_ones_own_is_refused_where_a_world_has_rules():
    with pytest.raises(UserError, match="success in push_t is defined"):
        rules_of("push_t", "strict", near=3.0)

"""What counts as solved in Two-Room, under each protocol, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from lewm.envs.predicates import Judge
from lewm.envs.restored import restored_world
from lewm.envs.rules import rules_of
from lewm.envs.two_room import DOOR_SPAN, WALL_X, WALL_ZONE, Physics, next_state
from lewm.envs.two_room_policy import direction
from lewm.envs.two_room_rules import in_wall, side
from lewm.errors import UserError

GOAL = np.array((150.0, 120.0), np.float32)


def walk(start, goal, *, steps=80, physics=None, through_door=True):
    """States on the way to a goal, by the world's own equations."""
    states = [np.array(start, np.float32)]
    for _ in range(steps):
        action = direction(states[-1], np.asarray(goal), through_door=through_door)
        states.append(next_state(states[-1], action, physics=physics or Physics()))
    return states


def verdicts(protocol, states, goal=GOAL):
    judge = rules_of("two_room", protocol).judge(np.asarray(goal, np.float32))
    return [judge.see(state) for state in states]


@pytest.mark.parametrize(("protocol", "near"), [("strict", 8), ("moderate", 16), ("paper", 16)])
def test_nearness_is_by_protocol_and_the_bound_itself_is_outside(protocol, near):
    around = [GOAL + np.array((0.0, away)) for away in (near + 1, near, near - 0.01)]
    assert verdicts(protocol, around) == [False, False, True]


@pytest.mark.parametrize("protocol", ["strict", "moderate", "paper"])
def test_a_walk_through_the_door_counts_and_the_first_hit_stays(protocol):
    there = walk((60, 120), GOAL, steps=90)
    assert verdicts(protocol, there)[-1]
    away = walk(there[-1], (190, 190), steps=30)
    assert verdicts(protocol, [*there, *away])[-1] and not verdicts(protocol, away[-5:])[-1]


def test_a_passage_through_the_wall_counts_for_nothing_under_strict():
    through = walk((60, 120), GOAL, physics=Physics(walls=False), through_door=False)
    assert np.linalg.norm(through[-1] - GOAL) < 8
    assert any(verdicts("moderate", through)) and not any(verdicts("strict", through))
    # nor does it become lawful by a walk back and forth through the door
    back = [*walk(through[-1], (60, 49)), *walk((60, 49), GOAL)]
    assert side(back[60]) and not any(verdicts("strict", [*through, *back]))


def test_a_jump_over_the_wall_counts_for_nothing_under_strict():
    assert not any(verdicts("strict", [(90, 120), (150, 120)]))
    assert not any(verdicts("strict", [(99, 34), (99, 32), (125, 32), (150, 120)]))


def test_near_the_goal_but_on_the_other_side_is_not_there():
    goal = np.array((WALL_X + 1, 49.0), np.float32)
    assert verdicts("strict", [(WALL_X - 4, 49)], goal) == [False]
    assert verdicts("strict", [(WALL_X - 4, 49), (WALL_X + 1, 49)], goal) == [False, True]
    assert verdicts("moderate", [(WALL_X - 4, 49)], goal) == [True]


def test_no_step_of_the_world_itself_is_ever_unlawful():
    rng = np.random.default_rng(0)
    crossings = 0
    for _ in range(40):
        state = np.array((rng.uniform(90, 134), rng.uniform(21, 75)), np.float32)
        if in_wall(state):
            continue
        judge = rules_of("two_room", "strict").judge(GOAL)
        for _ in range(150):
            judge.see(state)
            after = next_state(state, rng.uniform(-1, 1, 2))
            crossings += side(state) != side(after)
            state = after
        assert judge.condition.lawful
    assert crossings > 40


def test_a_condition_that_must_hold_starts_anew_when_it_is_lost():
    judge = Judge(lambda state: state[0] > 0, steps=3)
    assert [judge.see(np.array([x])) for x in (1, 1, -1, 1, 1, 1, -1)] == [False] * 5 + [True] * 2


def test_pairs_that_ask_for_nothing_have_a_reason():
    strict, moderate = rules_of("two_room", "strict"), rules_of("two_room", "moderate")
    left, right = np.array((106.0, 49.0)), np.array((116.0, 49.0))
    assert strict.reason(left, right) is None and moderate.reason(left, right) == "solved_at_start"
    assert strict.reason(GOAL, GOAL) == "solved_at_start"
    assert strict.reason(GOAL, GOAL + 30) == "one_room"
    wall = np.array(((WALL_ZONE[0] + WALL_X) / 2, DOOR_SPAN[1] + 20))
    assert strict.reason(wall, GOAL) == "in_wall" and strict.reason(np.array((60.0, 120.0)), GOAL) is None


def test_a_world_without_rules_is_refused():
    with pytest.raises(UserError, match="it is for: two_room"):
        rules_of("moon", "strict")
    with pytest.raises(UserError, match="no world 'moon'"):
        restored_world("moon", image_size=64)


def test_a_restored_world_goes_on_within_reach_of_its_own_target_and_beyond_its_own_time():
    world = restored_world("two_room", image_size=16)
    rng, state = np.random.default_rng(0), np.array((60.0, 100.0), np.float32)
    frame = world.restore(state)
    world.world._goal_state = state.copy()  # it would say that the episode is over at every step
    ended = []
    for _ in range(world.world.max_steps + 20):
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        expected = next_state(state, action)
        frame, state = world.step(action)
        ended.append(np.linalg.norm(state - (60, 100)) < 16)
        assert (state == expected).all() and (frame == world.world.render()).all()
    assert any(ended)

"""What counts as solved in Cube, under each protocol, and what does not."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from lewm.envs.cube_rules import CENTRE, QUATERNION, VELOCITY, cube_angle
from lewm.envs.rules import rules_of

AXES = np.eye(3)


def turn(axis, degrees):
    """A quaternion (w, x, y, z)."""
    half = np.radians(degrees) / 2
    return np.array((np.cos(half), *(np.sin(half) * np.asarray(axis, float) / np.linalg.norm(axis))))


def after(a, b):
    """The turn b about axes that the turn a has moved: the product a b."""
    return np.array((a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))))


def matrix(q):
    w, x, y, z = q
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def rotations():
    """The cube's 24, as signed permutation matrices of determinant 1."""
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            found = np.eye(3)[list(order)] * np.array(signs)
            if np.linalg.det(found) > 0:
                yield found


def state_of(centre=(0.4, 0.1, 0.02), quaternion=(1, 0, 0, 0)):
    state = np.zeros(41)
    state[CENTRE], state[QUATERNION] = centre, quaternion
    return state


def verdicts(protocol, states, goal):
    judge = rules_of("cube", protocol).judge(goal)
    return [judge.see(state) for state in states]


def test_the_cubes_numbers_are_where_the_file_has_them():
    with np.load(Path(__file__).parent / "data" / "cube_excerpt.npz") as file:
        np.testing.assert_array_equal(file["qpos"][:, CENTRE], file["privileged.block_0_pos"])
        np.testing.assert_array_equal(file["qpos"][:, QUATERNION], file["privileged.block_0_quat"])


@pytest.mark.parametrize(
    ("axis", "degrees", "left"),
    [(a, d, 0.0) for a in AXES for d in (90, 180, -90, 270)]
    + [(a, 45, 45.0) for a in AXES]
    + [(a, 100, 10.0) for a in AXES]
    + [((1, 1, 1), 120, 0.0), ((1, -1, 1), -120, 0.0), ((1, 1, 0), 180, 0.0), ((1, 1, 1), 60, 60.0)],
)
def test_what_is_left_of_known_turns(axis, degrees, left):
    base = turn((0.3, -0.5, 0.8), 77)
    found = cube_angle(base, after(base, turn(axis, degrees)))
    assert np.degrees(found) == pytest.approx(left, abs=1e-5)
    assert cube_angle(base, -after(base, turn(axis, degrees))) == pytest.approx(found), "q and -q are one orientation"


def test_what_is_left_is_the_least_over_all_24_rotations():
    group, rng = list(rotations()), np.random.default_rng(0)
    assert len(group) == 24
    for _ in range(200):
        a, b = (q / np.linalg.norm(q) for q in rng.normal(size=(2, 4)))
        angles = [np.arccos(np.clip((np.trace((matrix(a) @ g).T @ matrix(b)) - 1) / 2, -1, 1)) for g in group]
        assert cube_angle(a, b) == pytest.approx(min(angles), abs=1e-6)


@pytest.mark.parametrize(("near", "degrees", "solved"), [(0.029, 14, True), (0.031, 0, False), (0, 16, False)])
def test_strict_is_centre_and_orientation_held_for_three_states(near, degrees, solved):
    goal = state_of(quaternion=turn((0, 0, 1), 30))
    there = state_of((0.4, 0.1 + near, 0.02), turn((0, 0, 1), 30 + 90 + degrees))
    assert verdicts("strict", [there] * 4, goal) == [False, False, solved, solved]
    assert not any(verdicts("strict", [there, there, state_of((0.5, 0.1, 0.02))] * 2, goal))


@pytest.mark.parametrize("protocol", ["moderate", "paper"])
def test_otherwise_the_centre_counts_and_the_first_hit_stays(protocol):
    turned = turn((0, 0, 1), 45)
    states = [state_of((0.4, 0.1, 0.061), turned), state_of((0.4, 0.1, 0.059), turned), state_of((0.5, 0.3, 0.02))]
    assert verdicts(protocol, states, state_of()) == [False, True, True]


def test_where_the_arm_is_does_not_matter():
    moved = state_of()
    moved[:14], moved[VELOCITY] = 1.0, 2.0
    assert all(verdicts(protocol, [moved] * 3, state_of())[-1] for protocol in ("strict", "moderate", "paper"))


def test_rollouts_start_at_rest_but_for_the_paper():
    state = np.arange(41.0)
    for protocol in ("strict", "moderate"):
        start = rules_of("cube", protocol).start(state)
        assert not start[VELOCITY].any() and (start[: VELOCITY.start] == state[: VELOCITY.start]).all()
    np.testing.assert_array_equal(rules_of("cube", "paper").start(state), state)
    assert state[-1] == 40, "a start is a copy"


def test_pairs_that_ask_for_nothing_and_the_distance():
    rules = rules_of("cube", "strict")
    assert rules.reason(state_of(), state_of()) == "solved_at_start"
    assert rules.reason(state_of(quaternion=turn((0, 0, 1), 40)), state_of()) is None
    assert rules.distance(state_of((0.4, 0.1, 0.05)), state_of((0.4, 0.06, 0.02))) == pytest.approx(0.05)
    assert sum(n or 0 for n in rules.columns.values()) == len(state_of())

"""Planners with a planted model, Two-Room's own equations: what they then fail at would be their own fault.

`benchmarks/plan_exact.py` measures the rates on hundreds of pairs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lewm.envs.two_room import DOOR_SPAN, Physics, TwoRoom, next_state

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from exact_two_room import ExactTwoRoom, Pairs, Worlds, draw_pairs
from plan_exact import Setting, run

from lewm.plan import make_solver
from lewm.plan.mpc import MPC
from lewm.plan.space import ActionSpace

SIDE = 32
QUICK = {
    "cem": {"samples": 100, "elites": 10, "iterations": 12},
    "icem": {"samples": 100, "elites": 10, "iterations": 12},
    "mppi": {"samples": 100, "iterations": 12},
    "gradient": {"starts": 4, "iterations": 30},
}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return draw_pairs(20, "expert", seed=11)


@pytest.mark.parametrize("walls", [True, False])
def test_the_planted_model_rolls_out_as_the_world_does_bit_for_bit(walls):
    world, rng = TwoRoom(image_size=8), np.random.default_rng(0)
    starts = np.stack([world.sample_state(rng) for _ in range(150)])
    starts[::2, 0] = rng.uniform(85, 139, 75)  # near the wall
    actions = rng.normal(0, 1.5, (150, 1, 3, 5, 2)).astype(np.float32)
    model = ExactTwoRoom(walls=walls)
    found = model.rollout(torch.from_numpy(starts)[:, None], torch.zeros(150, 0, 5, 2), torch.from_numpy(actions))
    stopped = 0
    for i, state in enumerate(starts):
        for n in range(3):
            for action in actions[i, 0, n]:
                state = next_state(state, action, physics=Physics(walls=walls))
                stopped += state[0] in (99.5, 124.5)
            np.testing.assert_array_equal(found[i, 0, n].numpy(), state)
    assert (stopped > 50) == walls, "the wall was met"


@pytest.mark.parametrize(("side", "most"), [(32, 0.15), (224, 0.05)])
def test_the_planted_model_reads_the_place_from_the_frame(side, most):
    world, rng = TwoRoom(image_size=side), np.random.default_rng(1)
    states = [world.sample_state(rng) for _ in range(20)] + [(21, 21), (203, 203), (99.5, 80), (112, 49)]
    frames = []
    for state in states:
        world.set_state(state)
        frames.append(world.render())
    found = ExactTwoRoom(image_size=side).encode(torch.from_numpy(np.stack(frames))[:, None])[:, 0]
    assert np.abs(found.numpy() - np.array(states)).max() < most


def test_pairs_are_25_steps_apart_in_different_rooms_and_not_yet_solved(pairs):
    apart = np.abs(pairs.start - pairs.goal)
    assert ((pairs.start[:, 0] < 112) != (pairs.goal[:, 0] < 112)).all()
    assert (apart <= 125).all() and (np.linalg.norm(apart, axis=1) >= 8).all()
    assert pairs.std == pytest.approx((0.87, 0.87), abs=0.02), "actions of the expert, most of them cut at 1"


@pytest.mark.parametrize("solver", ["cem", "icem", "mppi"])
def test_sampling_solvers_go_through_the_door(solver, pairs):
    found = run(Setting(solver, QUICK[solver]), pairs, side=SIDE)
    assert found.arrived.sum() >= 19


def test_the_gradient_solves_a_room_without_a_wall(pairs):
    found = run(Setting("gradient", QUICK["gradient"], walls=False), pairs, side=SIDE)
    assert found.arrived.all()
    assert found.drift < 0.2, "embeddings come out as predicted, but for the reading of the first frame"


def test_random_actions_solve_next_to_nothing(pairs):
    assert run(Setting("random"), pairs, side=SIDE).arrived.sum() <= 5


def test_a_goal_behind_the_wall_is_reached_through_the_door_alone():
    """Straight ahead lies the wall, 20 units below the door; the way is found and every step of it is legal."""
    pair = Pairs(np.float32([[80, 80]]), np.float32([[144, 70]]), (0.0, 0.0), (0.87, 0.87), 0)
    model, worlds = ExactTwoRoom(image_size=SIDE, std=pair.std), Worlds(pair, image_size=SIDE, walls=True)
    space = ActionSpace.of(model.interface, (-1, -1), (1, 1))
    mpc = MPC(model, make_solver("icem", **QUICK["icem"]), space)
    mpc.start(worlds.frames, worlds.goals, [0])
    heights = []
    while not mpc.done and not worlds.arrived[0]:
        for block in mpc.plan()[0]:
            for action in block:
                before = worlds.worlds[0].state
                worlds.execute(action[None, None, None], np.array([0]))
                state = worlds.worlds[0].state
                if (before[0] < 112) != (state[0] < 112):
                    heights.append(float(state[1]))
        mpc.observe(worlds.picture(worlds.worlds[0].state).expand(1, 5, -1, -1, -1))
    assert worlds.arrived[0]
    assert heights and all(DOOR_SPAN[0] <= y <= DOOR_SPAN[1] for y in heights)


@pytest.mark.parametrize("solver", QUICK)
def test_plans_and_outcomes_are_the_same_one_at_a_time_and_sixteen_at_once(solver):
    pairs = draw_pairs(16, "wander", seed=3)
    together = outcome(solver, pairs, list(range(16)))
    for i in (0, 15):
        alone = outcome(solver, pairs, [i])
        torch.testing.assert_close(alone[0][0], together[0][i], rtol=0, atol=1e-4)
        assert alone[1][0] == together[1][i]


def outcome(solver: str, pairs: Pairs, rows: list[int]) -> tuple[torch.Tensor, list[bool]]:
    """All executed blocks (b, 4, k, a) of some pairs, replanned every two blocks, and who arrived."""
    few = Pairs(pairs.start[rows], pairs.goal[rows], pairs.mean, pairs.std, 0)
    model, worlds = (
        ExactTwoRoom(image_size=SIDE, mean=pairs.mean, std=pairs.std),
        Worlds(few, image_size=SIDE, walls=True),
    )
    space = ActionSpace.of(model.interface, (-1, -1), (1, 1))
    quick = {**QUICK[solver], "iterations": 5}
    mpc = MPC(model, make_solver(solver, **quick), space, execute=2, budget=20)
    mpc.start(worlds.frames, worlds.goals, rows)
    executed = []
    while not mpc.done:
        executed.append(mpc.plan())
        mpc.observe(worlds.execute(executed[-1], np.arange(len(rows))))
    return torch.cat(executed, dim=1), worlds.arrived.tolist()

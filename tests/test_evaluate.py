"""Rollouts: what a planner sees, when it is judged, and that no outcome depends on its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lewm.clip import Interface
from lewm.envs.predicates import Judge
from lewm.errors import UserError
from lewm.plan import make_solver
from lewm.plan.evaluate import Evaluation, Task, evaluate, random_policy
from lewm.plan.mpc import MPC, PlanRecord
from lewm.plan.noise import Noise
from lewm.plan.space import ActionSpace

STEP = 3.0  # bound of an action


def shown(x):
    """A frame that is the place itself: the bytes of a float32, and eight more."""
    return np.frombuffer(np.array([x, 0, 0], np.float32).tobytes(), np.uint8).reshape(2, 2, 3).copy()


class Reads:
    """Exact dynamics of the line, from such frames; it asserts that the blocks fit the frames between them."""

    interface = Interface(image_size=2, frameskip=2, history=3, action_mean=(0.0,), action_std=(1.0,))

    def __init__(self, blind=False):
        self.blind = blind

    def encode(self, pixels):
        b, t = pixels.shape[:2]
        places = np.ascontiguousarray(pixels.numpy()).reshape(b, t, 12).view(np.float32)[..., :1]
        return torch.from_numpy(places.copy())

    def rollout(self, z, past, future):
        assert torch.allclose(z[:, 1:, 0] - z[:, :-1, 0], past.sum(dim=(2, 3)), atol=1e-3)
        step = future.sum(dim=(3, 4)) * (0 if self.blind else 1)
        return (z[:, -1:] + step.cumsum(dim=2))[..., None]


class Line:
    """A point on a line."""

    def restore(self, state):
        self.x = float(state[0])
        return self.frame()

    def advance(self, action):
        assert abs(action[0]) <= STEP
        self.x += float(action[0])
        return np.array([self.x])

    def frame(self):
        return shown(self.x)

    def close(self):
        self.closed = True


def task(number, start, goal, near=2.0):
    return Task(
        f"k{number}", np.array([float(start)]), shown(goal)[None], lambda: Judge(lambda s: abs(s[0] - goal) < near)
    )


def tasks(num=6):
    rng = np.random.default_rng(0)
    return [task(i, 100 + rng.integers(-9, 9), 100 + rng.choice((-1, 1)) * rng.integers(15, 60)) for i in range(num)]


def controller(solver="cem", *, budget=24, execute=None, blind=False, **settings):
    settings = {"horizon": 3, "samples": 40, "elites": 5, "iterations": 5} | settings if solver == "cem" else settings
    space = ActionSpace([-STEP], [STEP])

    def make(seed):
        planner = make_solver(solver, **settings)
        return MPC(Reads(blind=blind), planner, space, budget=budget, execute=execute, seed=seed)

    return make


def outcomes(found: Evaluation):
    return {(r.key, r.seed): (r.solved_at, np.stack(r.states).tolist()) for r in found.rollouts}


def test_with_exact_dynamics_the_planner_arrives_and_random_actions_do_not():
    make = controller()
    planned = evaluate(make, tasks(), Line, seeds=[0, 1])
    floor = evaluate(lambda seed: random_policy(make(seed)), tasks(), Line, seeds=[0, 1])
    assert planned.solved(6).shape == (2, 6) and planned.solved(6).all()
    assert floor.solved(6).mean() < 0.5
    blind = evaluate(controller(blind=True), tasks(), Line, seeds=[0])
    assert blind.solved(6).mean() < 0.5


@pytest.mark.parametrize("policy", ["cem", "random"])
def test_outcomes_do_not_depend_on_the_batch_or_on_other_tasks(policy):
    make = controller(execute=1, budget=12)
    chosen = make if policy == "cem" else lambda seed: random_policy(make(seed))
    one, all_, reverse = (
        outcomes(evaluate(chosen, given, Line, seeds=[0, 3], batch=batch))
        for given, batch in ((tasks(), 1), (tasks(), 16), (tasks()[::-1][:4], 3))
    )
    assert one == all_
    assert reverse == {key: one[key] for key in reverse} and len(reverse) == 8
    assert one["k0", 0][1] != one["k0", 3][1]


def test_the_floor_does_not_depend_on_the_planners_settings():
    short, long = (controller(horizon=horizon, execute=1) for horizon in (2, 3))
    floors = [evaluate(lambda s, make=m: random_policy(make(s)), tasks(), Line, seeds=[0]) for m in (short, long)]
    assert outcomes(floors[0]) == outcomes(floors[1])


class Fixed:
    """A planner that goes up for a block and down for the next, whatever it sees."""

    horizon = 2

    def plan(self, problem, warm=None):
        from lewm.plan.protocol import Plan

        b = len(problem.z)
        blocks = torch.tensor([STEP, STEP, -STEP, -STEP]).reshape(1, 2, 2, 1).expand(b, -1, -1, -1)
        return Plan(blocks.clone(), torch.zeros(1, b), torch.zeros(1, b))


def fixed(seed):
    return MPC(Reads(), Fixed(), ActionSpace([-STEP], [STEP]), budget=8, seed=seed)


def test_a_hit_inside_a_block_counts_though_no_frame_shows_it():
    (rollout,) = evaluate(fixed, [task(0, 100, 103, near=1.0)], Line, seeds=[0]).rollouts
    assert rollout.solved_at == 1
    (missed,) = evaluate(fixed, [task(0, 100, 110, near=1.0)], Line, seeds=[0]).rollouts
    assert missed.solved_at is None and len(missed.states) == 9


def test_the_judge_sees_every_state_once_and_in_order():
    seen = []

    class Watching:
        def see(self, state):
            seen.append(float(state[0]))
            return False

    one = Task("k", np.array([100.0]), shown(0)[None], Watching)
    (rollout,) = evaluate(fixed, [one], Line, seeds=[0]).rollouts
    assert seen == [float(state[0]) for state in rollout.states] == [100, 103, 106, 103, 100, 103, 106, 103, 100]


def test_the_planner_is_given_frames_that_came_and_never_the_state():
    class Askew(Line):
        """Its states are nonsense; its frames are right."""

        def advance(self, action):
            return 1000 - super().advance(action)

    plain = evaluate(controller(), [task(0, 100, 140, near=0)], Line, seeds=[0]).records
    askew = evaluate(controller(), [task(0, 100, 140, near=0)], Askew, seeds=[0]).records
    assert all((a.blocks == b.blocks).all() for a, b in zip(plain, askew, strict=True)) and len(plain) == 4


def test_solved_tasks_are_planned_for_no_longer_and_those_solved_at_the_start_never():
    given = [task(0, 100, 101), task(1, 100, 112), task(2, 100, 160)]
    found = evaluate(controller(), given, Line, seeds=[0])
    assert [record.episodes for record in found.records[:2]] == [("k1", "k2"), ("k2",)]
    first, second, third = found.rollouts
    assert first.solved_at == 0 and len(first.states) == 1 and first.latent == []
    assert 3 < second.solved_at <= 6 and len(second.states) == 7  # to the end of what was being executed
    assert third.solved_at > 12


def test_latents_and_drift_are_of_the_blocks_that_were_executed():
    found = evaluate(controller(execute=2, budget=8), [task(0, 100, 150)], Line, seeds=[0], shown=1)
    (rollout,) = found.rollouts
    assert rollout.ahead == [1, 2, 1, 2] and len(rollout.frames) == len(rollout.states) == 9
    places = np.concatenate([frame.reshape(-1).view(np.float32)[:1] for frame in rollout.frames[::2]])
    assert np.allclose(rollout.latent, (places[1:] - 150) ** 2)
    imagined = np.concatenate(rollout.imagined)
    assert np.allclose(rollout.drift, (imagined - places[1:]) ** 2, atol=1e-9)
    assert np.allclose(rollout.predicted_latent, (imagined - 150) ** 2, rtol=1e-4)
    assert max(rollout.drift) < 1e-6


def test_of_several_goal_frames_the_last_is_the_goal():
    """The planner is given all of them; distances are to the last."""
    two = Task("k", np.array([100.0]), np.stack([shown(120), shown(150)]), lambda: Judge(lambda s: False))
    found = evaluate(controller(execute=2, budget=4), [two], Line, seeds=[0])
    (rollout,) = found.rollouts
    assert np.allclose(rollout.latent, [(rollout.states[i][0] - 150) ** 2 for i in (2, 4)])


def test_random_actions_are_those_of_the_pair_and_seed_whatever_is_planned():
    """The floor is on the same pairs and seeds, and executes what was drawn."""
    make = controller(execute=1, budget=12)
    floor = evaluate(lambda seed: random_policy(make(seed)), tasks(2), Line, seeds=[0, 4])
    assert [(r.key, r.seed) for r in floor.rollouts] == [("k0", 0), ("k1", 0), ("k0", 4), ("k1", 4)]
    for rollout in floor.rollouts:
        noise = Noise(rollout.seed, (rollout.key,), 0).uniform("random policy", 5, 2, 1)[0].flatten()
        steps = np.diff(np.concatenate(rollout.states))[:10]
        assert np.allclose(steps, (-STEP + 2 * STEP * noise.numpy())[: len(steps)], atol=1e-3)


def test_a_world_is_drawn_after_blocks_alone_unless_it_is_filmed_and_closed_at_the_end():
    class Counting(Line):
        worlds = []

        def restore(self, state):
            self.drawn = self.closed = 0
            self.worlds.append(self)
            return super().restore(state)

        def frame(self):
            self.drawn += 1
            return super().frame()

    evaluate(controller(execute=2, budget=8), [task(0, 100, 150), task(1, 100, 190)], Counting, seeds=[0], shown=1)
    filmed, other = Counting.worlds
    assert other.drawn == 1 + 4 and filmed.drawn == 1 + 8 + 4  # the start, blocks, and every step of what is filmed
    assert filmed.closed and other.closed


def test_worlds_are_closed_where_a_later_one_cannot_be_made_or_restored():
    class Failing(Line):
        worlds, where = [], ""

        def __init__(self):
            self.closed = False
            self.worlds.append(self)
            assert self.where != "made" or len(self.worlds) < 3

        def restore(self, state):
            assert self.where != "restored" or self is not self.worlds[2]
            return super().restore(state)

    for where, num in (("made", 2), ("restored", 4)):
        Failing.worlds, Failing.where = [], where
        with pytest.raises(AssertionError):
            evaluate(controller(), tasks(4), Failing, seeds=[0])
        assert [world.closed for world in Failing.worlds[:num]] == [True] * num


def test_only_shown_tasks_of_the_first_seed_keep_frames():
    found = evaluate(controller(), tasks(3), Line, seeds=[0, 1], shown=2, batch=2)
    assert [bool(r.frames) and bool(r.imagined) for r in found.rollouts] == [True, True, False] + [False] * 3


def test_milliseconds_are_shared_by_the_episodes_planned_for_and_weighted_by_them():
    def record(milliseconds, num):
        empty, keys = torch.zeros(1, num), tuple(f"k{i}" for i in range(num))
        blocks = torch.zeros(num, 1, 1, 1)
        return PlanRecord(0, keys, milliseconds, 3.0, empty, empty, empty[0], blocks, blocks[..., 0])

    found = Evaluation(records=[record(90.0, 9), record(100.0, 1)])
    ms = found.plan_ms()
    assert ms["median"] == 10 and ms["plans"] == 10 and ms["together"] == 5 and ms["p95"] == pytest.approx(59.5)
    assert found.search_ms() == {"median": 95, "p95": 99.5}, "a whole search, each counted once"
    assert found.encode_ms() == {"median": 3, "p95": 3}
    assert Evaluation().search_ms() == {"median": None, "p95": None}


def test_nothing_to_plan_for_is_an_error():
    for given, batch in (([], 4), (tasks(), 0)):
        with pytest.raises(UserError, match="nothing to plan for"):
            evaluate(controller(), given, Line, seeds=[0], batch=batch)

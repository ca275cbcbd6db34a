"""Receding horizon: what a planner is shown, what is executed, what is written down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.plan import make_solver
from lewm.plan.mpc import MPC
from lewm.plan.protocol import Plan
from lewm.plan.space import ActionSpace

K, N = 2, 4


class Reader:
    """An embedding is its frame's first pixel; a block adds its sum. Every encoded frame is noted."""

    def __init__(self, history=3):
        self.interface = Interface(
            image_size=2, frameskip=K, history=history, action_mean=(0.0,), action_std=(1.0,), channels=1
        )
        self.encoded = []

    def encode(self, pixels):
        self.encoded += pixels[..., 0, 0, 0].flatten().tolist()
        return pixels[..., 0, 0, :].float()

    def rollout(self, z, past, future):
        assert past.shape[1] == z.shape[1] - 1
        return z[:, None, -1:] + future.sum(dim=3).cumsum(dim=2)


class Script:
    """Plans block values 1, 2, 3 ... of its own count and notes what it was given."""

    horizon = N

    def __init__(self):
        self.given = []

    def plan(self, problem, warm=None):
        self.given.append(SimpleNamespace(z=problem.z.clone(), past=problem.past.clone(), warm=warm, problem=problem))
        first = 10 * len(self.given)
        blocks = (first + torch.arange(N, dtype=torch.float32))[None, :, None, None].expand(len(problem.z), N, K, 1)
        costs = torch.zeros(1, len(problem.z))
        return Plan(blocks.clone(), costs, costs)


SPACE = ActionSpace([-99.0], [99.0], mean=[0.0], std=[1.0])


def frames(*values):
    """(b, h, w, c) from one value for each episode."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 1)


def after(*rows):
    """(b, e, h, w, c) from a list of values for each episode."""
    return torch.tensor(rows, dtype=torch.uint8)[..., None, None, None].expand(-1, -1, 2, 2, 1)


def started(planner=None, *, history=3, **settings) -> tuple[MPC, Reader]:
    model = Reader(history)
    mpc = MPC(model, planner or Script(), SPACE, **{"budget": 20, **settings})
    mpc.start(frames(1, 2), frames(200, 201)[:, None], ["x", "y"])
    return mpc, model


def test_the_context_holds_the_frames_and_blocks_really_executed_and_grows_to_the_history():
    script = Script()
    mpc, _ = started(script, execute=2)
    assert mpc.plan().shape == (2, 2, K, 1)
    first = script.given[0]
    assert first.z.tolist() == [[[1.0]], [[2.0]]] and first.past.shape == (2, 0, K, 1), "one frame, nothing padded"
    mpc.observe(after([11, 12], [21, 22]))
    mpc.plan()
    assert script.given[1].z[:, :, 0].tolist() == [[1, 11, 12], [2, 21, 22]]
    assert script.given[1].past[0, :, :, 0].tolist() == [[10, 10], [11, 11]]
    mpc.observe(after([13, 14], [23, 24]))
    mpc.plan()
    assert script.given[2].z[:, :, 0].tolist() == [[12, 13, 14], [22, 23, 24]]
    assert script.given[2].past[0, :, :, 0].tolist() == [[20, 20], [21, 21]], "between these three frames"


@pytest.mark.parametrize("history", [1, 2])
def test_a_shorter_history_forgets_more(history):
    script = Script()
    mpc, _ = started(script, history=history, execute=2)
    mpc.plan()
    mpc.observe(after([11, 12], [21, 22]))
    mpc.plan()
    assert script.given[1].z[:, :, 0].tolist() == [[11, 12][2 - history :], [21, 22][2 - history :]]
    assert script.given[1].past[0, :, :, 0].tolist() == [[11, 11]][: history - 1]


def test_what_was_executed_instead_of_the_plan_enters_the_context():
    script = Script()
    mpc, _ = started(script, execute=2)
    mpc.plan()
    mpc.observe(after([11], [21]), torch.full((2, 1, K, 1), -5.0))
    assert mpc.step == K, "one of the two blocks"
    mpc.plan()
    assert script.given[1].z[:, :, 0].tolist() == [[1, 11], [2, 21]]
    assert script.given[1].past.unique().tolist() == [-5]
    assert script.given[1].warm.blocks[0, :, 0, 0].tolist() == [11, 12, 13], "only one block is gone"


def test_every_frame_is_encoded_once():
    mpc, model = started(make_solver("cem", horizon=N, samples=8, elites=2, iterations=3), execute=2)
    value = 10
    while not mpc.done:
        e = mpc.plan().shape[1]
        mpc.observe(after(range(value, value + e), range(100 + value, 100 + value + e)))
        value += e
    assert len(model.encoded) == len(set(model.encoded)) == 4 + 2 * 10


def test_the_budget_is_kept_to_the_step_and_the_last_plan_is_cut_to_it():
    mpc, _ = started(execute=4, budget=20)
    executed = []
    while not mpc.done:
        e = mpc.plan().shape[1]
        executed.append(e)
        mpc.observe(after([1] * e, [2] * e))
    assert executed == [4, 4, 2] and mpc.step == 20
    assert [record.step for record in mpc.records] == [0, 8, 16]


def test_as_in_the_paper_all_blocks_are_executed_and_the_next_plan_starts_afresh():
    script = Script()
    mpc = MPC(Reader(), script, SPACE, budget=16)
    mpc.start(frames(1), frames(9)[:, None], [0])
    for _ in range(2):
        assert mpc.plan().shape[1] == N
        mpc.observe(after([1, 2, 3, 4]))
    assert mpc.done and [given.warm for given in script.given] == [None, None]


@pytest.mark.parametrize("warm_start", [True, False])
def test_the_rest_of_a_plan_starts_the_next_search(warm_start):
    script = Script()
    mpc, _ = started(script, execute=1, warm_start=warm_start)
    mpc.plan()
    mpc.observe(after([11], [21]))
    mpc.plan()
    if warm_start:
        assert script.given[1].warm.blocks[1, :, 0, 0].tolist() == [11, 12, 13]
    else:
        assert script.given[1].warm is None


def test_a_record_holds_costs_times_and_embeddings_predicted_and_realised():
    mpc, _ = started(execute=2)
    mpc.plan()
    record = mpc.records[0]
    assert record.episodes == ("x", "y") and record.step == 0
    assert record.milliseconds > 0 and record.encode_milliseconds > 0
    assert record.predicted[:, :, 0].tolist() == [[21, 43, 67, 93], [22, 44, 68, 94]]
    assert record.cost.tolist() == [(93 - 200) ** 2, (94 - 201) ** 2]
    assert record.best.shape == record.mean.shape == (1, 2)
    with pytest.raises(UserError, match="not executed"):
        record.drift()
    mpc.observe(after([21, 40], [22, 49]))
    assert record.realised is not None and record.realised[:, :, 0].tolist() == [[21, 40], [22, 49]]
    assert record.drift().tolist() == [[0, 9], [0, 25]]


def test_noise_is_keyed_by_the_seed_the_episodes_and_the_step():
    script = Script()
    mpc, _ = started(script, execute=3, seed=7)
    mpc.plan()
    mpc.observe(after([1, 2, 3], [4, 5, 6]))
    mpc.plan()
    noises = [given.problem.noise for given in script.given]
    assert [(n.seed, n.episodes, n.step) for n in noises] == [(7, ("x", "y"), 0), (7, ("x", "y"), 6)]


def test_episodes_that_go_on_are_not_changed_by_those_that_leave():
    def run(leaving: bool):
        mpc, _ = started(make_solver("icem", horizon=N, samples=12, elites=4, iterations=3), execute=2)
        mpc.plan()
        mpc.observe(after([3, 4], [5, 6]))
        if leaving:
            mpc.keep(torch.tensor([False, True]))
            assert mpc.episodes == ("y",) and len(mpc.goal) == 1
        blocks = [mpc.plan()[-1]]
        mpc.observe(after(*[[7, 8]] * len(mpc.episodes)))
        return [*blocks, mpc.plan()[-1]]

    for alone, together in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_several_goal_frames_reach_the_cost():
    seen = []

    def cost(predicted, goal, actions):
        seen.append(tuple(goal.shape))
        return predicted[..., -1, 0]

    mpc = MPC(Reader(), make_solver("shooting", horizon=N, samples=4, iterations=1), SPACE, cost=cost, budget=2)
    mpc.start(frames(1, 2), after([7, 8, 9], [4, 5, 6]), [0, 1])
    mpc.plan()
    assert set(seen) == {(2, 3, 1)} and mpc.goal[:, :, 0].tolist() == [[7, 8, 9], [4, 5, 6]]


def test_starting_again_forgets_the_episodes_before():
    mpc, _ = started(execute=1)
    mpc.plan()
    mpc.observe(after([11], [21]))
    mpc.start(frames(5), frames(9)[:, None], [3])
    mpc.plan()
    assert len(mpc.records) == 1 and mpc.step == 0 and mpc.planner.given[-1].z.tolist() == [[[5.0]]]
    assert mpc.planner.given[-1].warm is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"execute": 5}, "of a horizon of 4 blocks 1 to 4 can be executed, not 5"),
        ({"execute": 0}, "not 0"),
        ({"budget": 5}, "5 steps is no multiple of the model's frameskip 2"),
        ({"budget": 0}, "no multiple"),
        ({"chunk": 0}, "at least 1, not 0"),
        ({"threads": 0}, "at least 1, not 0"),
        ({"space": ActionSpace([-1] * 3, [1] * 3)}, "actions of 3 numbers for a model that takes 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, why):
    space = settings.pop("space", SPACE)
    with pytest.raises(UserError, match=why) as caught:
        MPC(Reader(), Script(), space, **{"budget": 20, **settings})
    assert "\n" not in str(caught.value)


def test_frames_goals_and_keys_that_do_not_fit_together_are_refused():
    mpc = MPC(Reader(), Script(), SPACE, budget=4)
    with pytest.raises(UserError, match=r"goal images of \(3, 2, 1\) for frames of \(2, 2, 1\)"):
        mpc.start(frames(1), torch.zeros(1, 1, 3, 2, 1, dtype=torch.uint8), [0])
    with pytest.raises(UserError, match="1 different keys for 2 episodes"):
        mpc.start(frames(1, 2), frames(1, 2)[:, None], ["same", "same"])
    mpc.start(frames(1, 2), frames(1, 2)[:, None], [0, 1])
    mpc.plan()
    with pytest.raises(UserError, match="frames of 1 episodes after 1 blocks, where 2 episodes executed 1 to 4"):
        mpc.observe(after([1]))

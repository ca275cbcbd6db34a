"""The built-in world against an excerpt of stable-worldmodel's Two-Room data, and what its interface promises."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from lewm.envs.two_room import NATIVE, Physics, TwoRoom, next_state
from lewm.envs.two_room_policy import POLICIES, NoisyExpert, Wanderer
from lewm.errors import UserError

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data" / "tworoom_64.h5"


@pytest.fixture(scope="module")
def excerpt() -> dict[str, np.ndarray]:
    with np.load(HERE / "data" / "tworoom_excerpt.npz") as file:
        return dict(file)


def steps_inside(lengths: np.ndarray) -> np.ndarray:
    """Rows that are followed by a row of the same episode."""
    return np.setdiff1d(np.arange(lengths.sum()), np.cumsum(lengths) - 1)


def walk(env: TwoRoom, policy, seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """One episode's states, actions and frames."""
    frame, info = env.reset(seed=seed)
    policy.reset(seed)
    states, actions, frames, done = [info["state"]], [], [frame], False
    while not done:
        actions.append(policy(env))
        frame, _, terminated, truncated, info = env.step(actions[-1])
        states.append(info["state"])
        frames.append(frame)
        done = terminated or truncated
    return np.stack(states), np.stack(actions), frames


def test_next_state_equals_the_recorded_one_exactly(excerpt):
    state, action = excerpt["state"], excerpt["action"]
    rows = steps_inside(excerpt["lengths"])
    predicted = np.stack([next_state(state[t], action[t]) for t in rows])
    assert predicted.dtype == np.float32
    np.testing.assert_array_equal(predicted, state[rows + 1])
    assert np.isin(predicted[:, 0], (99.5, 124.5)).sum() >= 10, "the excerpt should hold stops by the wall"
    assert np.isin(predicted, (21, 203)).sum() >= 5, "and by the border"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside this checkout")
def test_next_state_equals_every_recorded_row_of_the_shared_file():
    h5py = pytest.importorskip("h5py")
    with h5py.File(SHARED) as file:
        state, action, lengths = file["state"][:], file["action"][:], file["ep_len"][:]
        distance, terminated, goal = file["distance_to_target"][:], file["terminated"][:], file["goal_state"][:]
    rows = steps_inside(lengths)
    predicted = np.stack([next_state(state[t], action[t]) for t in rows])
    np.testing.assert_array_equal(predicted, state[rows + 1])
    np.testing.assert_array_equal(distance < 16, terminated)
    np.testing.assert_allclose(np.linalg.norm(state - goal, axis=1), distance, atol=1e-4)


@pytest.mark.parametrize("size", [64, NATIVE])
def test_frames_are_the_recorded_ones_but_for_rounding(excerpt, size):
    env = TwoRoom(image_size=size)
    for state, recorded in zip(excerpt[f"state_{size}"], excerpt[f"pixels_{size}"], strict=True):
        env.set_state(state)
        difference = np.abs(env.render().astype(int) - recorded)
        assert difference.max() <= 1
        assert difference.mean() < 0.01


@pytest.mark.parametrize("size", [8, 32, 63, 96, 112])
def test_a_smaller_frame_is_the_native_one_averaged_over_blocks(size):
    large, small = TwoRoom(), TwoRoom(image_size=size)
    edges = [int(np.floor(i * NATIVE / size + 0.5)) for i in range(size + 1)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        state = large.sample_state(rng)
        large.set_state(state)
        small.set_state(state)
        native = large.render().astype(float)
        blocks = np.add.reduceat(np.add.reduceat(native, edges[:-1], axis=0), edges[:-1], axis=1)
        area = np.outer(np.diff(edges), np.diff(edges))[..., None]
        assert np.abs(small.render() - blocks / area).max() <= 1.01  # rounded twice


def test_the_dot_is_where_the_state_says():
    env = TwoRoom()
    env.set_state((70.0, 150.0))
    y, x = np.argwhere((env.render() == (255, 0, 0)).all(-1)).mean(0)
    assert (x, y) == (70, 150)


def test_the_target_is_not_drawn():
    env = TwoRoom(image_size=32)
    options = {"state": (50, 50), "goal_state": (180, 180)}
    here, _ = env.reset(seed=0, options=options)
    there, _ = env.reset(seed=0, options={**options, "goal_state": (30, 190)})
    np.testing.assert_array_equal(here, there)


def test_equal_seeds_give_equal_trajectories():
    for policy in POLICIES.values():
        first, second, third = (walk(TwoRoom(image_size=16), policy(), seed) for seed in (3, 3, 4))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(first[0][0], third[0][0])


def test_gymnasium_finds_nothing_to_complain_about():
    spec = EnvSpec(
        "lewm/TwoRoom-test-v0",
        entry_point="lewm.envs.two_room:TwoRoom",
        kwargs={"image_size": 32},
        disable_env_checker=True,
    )
    env = gymnasium.make(spec, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_info_holds_state_goal_and_distance():
    env = TwoRoom(image_size=32)
    _, info = env.reset(seed=1, options={"state": (30, 40), "goal_state": (60, 80)})
    assert info["distance_to_target"] == 50.0
    assert info["state"].dtype == info["goal_state"].dtype == np.float32
    np.testing.assert_array_equal(info["goal_state"], (60, 80))
    _, reward, _, _, info = env.step(np.array((1.0, -3.0)))  # beyond 1 is clipped
    np.testing.assert_array_equal(info["state"], (35, 35))
    assert reward == 0


def test_an_episode_terminates_near_the_target_and_is_truncated_at_max_steps():
    env = TwoRoom(image_size=8, max_steps=2)
    env.reset(seed=0, options={"state": (50, 150), "goal_state": (75, 150)})
    assert env.step(np.array((1, 0)))[2:4] == (False, False)
    assert env.step(np.array((1, 0)))[2:4] == (True, True)


def test_starts_and_targets_cover_the_floor_and_no_start_touches_the_wall():
    env = TwoRoom(image_size=8)
    infos = [env.reset(seed=seed)[1] for seed in range(500)]
    start, goal = (np.stack([info[name] for info in infos]) for name in ("state", "goal_state"))
    for points in (start, goal):
        assert 14 <= points.min() < 17 and 206 < points.max() <= 209
    assert not ((start[:, 0] >= 100) & (start[:, 0] <= 124)).any()
    assert 0.05 < ((goal[:, 0] >= 100) & (goal[:, 0] <= 124)).mean() < 0.2  # targets may lie in the wall


def test_set_state_moves_the_agent_and_its_dot():
    env = TwoRoom(image_size=32)
    before, _ = env.reset(seed=0, options={"state": (50, 50)})
    env.set_state((180, 190))
    np.testing.assert_array_equal(env.state, (180, 190))
    assert not np.array_equal(env.render(), before)
    env.state[:] = 0  # a copy
    np.testing.assert_array_equal(env.state, (180, 190))


@pytest.mark.parametrize("state", [(np.nan, 50), (50, np.inf), (13, 50), (50, 210), (50,), ((50, 50),)])
def test_set_state_refuses_what_is_not_on_the_floor(state):
    env = TwoRoom(image_size=32)
    before = env.state
    with pytest.raises(UserError, match="a state is"):
        env.set_state(state)
    np.testing.assert_array_equal(env.state, before)


def test_legal_states_are_those_that_can_be_walked_to(excerpt):
    env = TwoRoom(image_size=32)
    assert all(env.legal_state(state) for state in excerpt["state"])
    assert env.legal_state((112, 49))  # in the door
    for state in ((112, 112), (101, 66), (20.5, 50), (50, 203.5), (np.nan, 50)):
        assert not env.legal_state(state)
    rng = np.random.default_rng(0)
    samples = np.stack([env.sample_state(rng) for _ in range(500)])
    assert all(env.legal_state(state) for state in samples)
    assert 0.4 < (samples[:, 0] > 112).mean() < 0.6


def test_a_colour_changes_its_object_alone_and_until_the_next_reset():
    env = TwoRoom(image_size=NATIVE, wall_colour=(10, 20, 30))
    options = {"state": (60, 150)}
    before, _ = env.reset(seed=0, options=options)
    assert tuple(before[12, 100]) == tuple(before[112, 112]) == (10, 20, 30)
    for name, (x, y) in {"agent": (60, 150), "wall": (112, 112), "door": (112, 49), "background": (180, 60)}.items():
        env.reset(seed=0, options=options)
        env.set_colour(name, (0, 77, 200))
        assert env.colours[name] == (0, 77, 200)
        frame = env.render()
        assert tuple(frame[y, x]) == (0, 77, 200)
        changed = (frame != before).any(-1)
        assert 0 < changed.mean() < (0.95 if name == "background" else 0.15)
    restored, _ = env.reset(seed=0, options=options)
    np.testing.assert_array_equal(restored, before)
    assert env.colours == {
        "agent": (255, 0, 0),
        "wall": (10, 20, 30),
        "door": (255, 255, 255),
        "background": (255, 255, 255),
    }


def path_of(env: TwoRoom, start, actions, change=lambda env: None) -> np.ndarray:
    """Positions after each action; the change is made before the first."""
    env.reset(seed=0, options={"state": start})
    change(env)
    return np.stack([env.step(np.array(action))[4]["state"] for action in actions])


def test_everything_that_is_set_is_undone_by_reset_and_leaves_no_trace():
    def trajectory(env) -> list[np.ndarray]:
        states, _, frames = walk(env, NoisyExpert(), 5)
        return [states, *frames]

    used = TwoRoom(image_size=16)
    used.set_visible("agent", False)
    used.set_physics(speed=2.0, momentum=0.9, walls=False)
    used.set_colour("agent", (0, 200, 0))
    for _ in range(3):  # leaves a displacement, of which nothing must be kept
        used.step(np.ones(2))
    for a, b in zip(trajectory(used), trajectory(TwoRoom(image_size=16)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_built_in_physics_named_outright_are_bit_identical_to_none_named(excerpt):
    state, action = excerpt["state"][:-1], excerpt["action"][:-1]
    for s, a in list(zip(state, action, strict=True))[:300]:
        if np.isfinite(a).all():
            last = np.array((3.0, -2.0), np.float32)
            named = next_state(s, a, last, Physics(speed=1.0, momentum=0.0, walls=True))
            assert named.tobytes() == next_state(s, a).tobytes()


def test_a_hidden_agent_leaves_the_empty_room_and_goes_on_walking():
    env = TwoRoom(image_size=NATIVE)
    env.reset(seed=0, options={"state": (60, 150)})
    env.set_visible("agent", False)
    empty = env.render()
    assert (empty[150, 60] == 255).all() and (empty[112, 112] == 0).all()
    frame = env.step(np.array((1.0, 0.0)))[0]
    np.testing.assert_array_equal(frame, empty)
    np.testing.assert_array_equal(env.state, (65, 150))
    frame[:] = 0  # a copy: drawing into it must not spoil later frames
    np.testing.assert_array_equal(env.render(), empty)
    env.set_colour("wall", (0, 0, 250))
    assert tuple(env.render()[112, 112]) == (0, 0, 250)
    env.set_visible("agent", True)
    assert tuple(env.render()[150, 65]) == (255, 0, 0)


def test_speed_is_a_factor_on_the_displacement_after_the_action_is_clipped():
    env, actions = TwoRoom(image_size=8), [(3.0, 0.0), (0.5, -1.0)]
    np.testing.assert_array_equal(path_of(env, (50, 150), actions), [(55, 150), (57.5, 145)])
    half = path_of(env, (50, 150), actions, lambda env: env.set_physics(speed=0.5))
    np.testing.assert_array_equal(half, [(52.5, 150), (53.75, 147.5)])


def test_momentum_keeps_a_share_of_the_last_displacement_also_of_the_step_before_it_was_set():
    env = TwoRoom(image_size=8)
    slide = path_of(env, (50, 150), [(1, 0), (0, 0), (0, 0), (0, 1)], lambda env: env.set_physics(momentum=0.5))
    np.testing.assert_array_equal(slide, [(55, 150), (57.5, 150), (58.75, 150), (59.375, 155)])
    env.reset(seed=0, options={"state": (50, 150)})
    env.step(np.array((1.0, 0.0)))
    env.set_physics(momentum=0.5)
    np.testing.assert_array_equal(env.step(np.zeros(2))[4]["state"], (57.5, 150))


def test_a_border_takes_the_momentum_away():
    slide = path_of(
        TwoRoom(image_size=8), (200, 150), [(1, 0), (0, 0), (0, 0)], lambda env: env.set_physics(momentum=0.5)
    )
    np.testing.assert_array_equal(slide, [(203, 150), (203, 150), (203, 150)])  # 1.5 of 3 would be outside


def test_without_walls_the_agent_crosses_the_wall_but_not_the_border():
    env, right = TwoRoom(image_size=8), [(1, 0)] * 40
    stopped = path_of(env, (90, 150), right)
    assert stopped[:, 0].max() == 100 and stopped[-1, 0] == 99.5
    through = path_of(env, (90, 150), right, lambda env: env.set_physics(walls=False))
    np.testing.assert_array_equal(through[:, 0], np.minimum(90 + 5 * np.arange(1, 41), 203))
    assert (through[:, 1] == 150).all()


@pytest.mark.parametrize("physics", [Physics(), Physics(speed=0.5, momentum=0.5, walls=False)])
def test_next_state_changes_nothing_that_it_is_given(physics):
    given = [np.array(pair, np.float32) for pair in ((98, 150), (1, 1), (5, 5))]
    copies = [array.copy() for array in given]
    first = next_state(*given, physics)
    np.testing.assert_array_equal(first, next_state(*given, physics))
    for array, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [
        lambda env: env.set_colour("target", (0, 0, 0)),
        lambda env: env.set_colour("agent", (0, 0, 256)),
        lambda env: env.set_colour("agent", (0.5, 0.5, 0.5)),
        lambda env: env.set_visible("wall", False),
        lambda env: env.set_physics(speed=-0.5),
        lambda env: env.set_physics(speed=np.nan),
        lambda env: env.set_physics(momentum=1.0),
        lambda env: env.set_physics(momentum=np.nan),
        lambda env: env.reset(options={"target_state": (50, 50)}),
        lambda env: env.step(np.array((np.nan, 0))),
        lambda env: env.step(np.zeros(3)),
        lambda env: TwoRoom(image_size=256),
        lambda env: TwoRoom(max_steps=0),
    ],
)
def test_a_request_that_cannot_be_honoured_is_a_user_error(wrong):
    with pytest.raises(UserError):
        wrong(TwoRoom(image_size=32))


def test_the_expert_mostly_arrives_and_saturates_like_the_recorded_data():
    env = TwoRoom(image_size=8)
    walks = [walk(env, NoisyExpert(), seed) for seed in range(60)]
    actions = np.concatenate([actions for _, actions, _ in walks])
    assert actions.dtype == np.float32
    assert np.mean(np.abs(actions) == 1) == pytest.approx(0.64, abs=0.03)
    assert np.mean([len(actions) < 100 for _, actions, _ in walks]) > 0.5  # of the recorded: 0.70


def test_the_wanderer_sees_more_of_the_floor_than_the_expert():
    def cells(policy) -> float:
        """Effective number of 14-unit cells visited: the exponential of the entropy."""
        env = TwoRoom(image_size=8)
        states = np.concatenate([walk(env, policy, seed)[0][1:] for seed in range(60)])
        share = np.histogram2d(*states.T, bins=13, range=[(21, 203)] * 2)[0].ravel() / len(states)
        return float(np.exp(-np.sum(share[share > 0] * np.log(share[share > 0]))))

    assert cells(Wanderer()) > cells(NoisyExpert()) + 10

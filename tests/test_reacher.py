"""Reacher against an excerpt of stable-worldmodel's data, and what its interface promises."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm.datasets.collect import run_episode
from lewm.envs import make_policy, make_world
from lewm.envs.mujoco_gl import NONE, VARIABLE, load
from lewm.envs.reacher import Reacher, scene
from lewm.errors import UserError

LIMIT = np.radians(160)  # of the wrist

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="needs dm-control, which has no build for Python 3.13 yet"
)


@pytest.fixture(scope="module")
def excerpt() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "reacher_excerpt.npz") as file:
        return dict(file)


@pytest.fixture
def drawing():
    """Leaves a test out on a machine where nothing can draw."""
    load("reacher")
    if os.environ.get(VARIABLE) == NONE:
        pytest.skip("no off-screen renderer for MuJoCo on this machine")


def states_of(excerpt) -> np.ndarray:
    return np.concatenate([excerpt["qpos"], excerpt["qvel"]], axis=1)


def starts(excerpt) -> list[int]:
    return [0, *np.cumsum(excerpt["lengths"])[:-1].tolist()]


def test_each_step_leads_from_the_recorded_state_to_the_next(excerpt):
    world, states = Reacher(), states_of(excerpt)
    assert np.abs(excerpt["qpos"][:, 1]).max() > LIMIT - 1e-3, "the excerpt should hold the wrist's limit"
    for t in np.setdiff1d(np.arange(len(states)), np.cumsum(excerpt["lengths"]) - 1):
        world.set_state(states[t])
        world.advance(excerpt["action"][t])
        np.testing.assert_allclose(world.state, states[t + 1], rtol=0, atol=1e-9)


def test_a_whole_stretch_of_actions_leads_where_it_led(excerpt):
    world, states = Reacher(), states_of(excerpt)
    for start, length in zip(starts(excerpt), excerpt["lengths"], strict=True):
        world.set_state(states[start])
        for t in range(start, start + length - 1):
            world.advance(excerpt["action"][t])
        np.testing.assert_allclose(world.state, states[start + length - 1], rtol=0, atol=1e-9)


def test_a_restored_state_is_exact_and_forgets_what_was_before(excerpt):
    world, states = Reacher(), states_of(excerpt)
    fresh = Reacher()
    fresh.set_state(states[30])
    fresh.advance(excerpt["action"][30])
    for action in np.ones((20, 2)):
        world.advance(action)
    world.set_state(states[30])
    np.testing.assert_array_equal(world.state, states[30])
    world.advance(excerpt["action"][30])
    np.testing.assert_array_equal(world.state, fresh.state)


def test_worlds_that_take_turns_move_as_if_alone(excerpt):
    states, rng = states_of(excerpt), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (2, 20, 2))
    alone = []
    for i in range(2):
        world = Reacher()
        world.set_state(states[i])
        alone += [[(world.advance(a), world.state)[1] for a in actions[i]]]
    worlds = [Reacher(), Reacher()]
    for world, state in zip(worlds, states, strict=False):
        world.set_state(state)
    for t in range(20):
        for i, world in enumerate(worlds):
            world.advance(actions[i, t])
            np.testing.assert_array_equal(world.state, alone[i][t])


def test_finger_and_columns_are_those_of_the_file(excerpt):
    world = Reacher()
    for t, state in enumerate(states_of(excerpt)):
        world.set_state(state)
        assert set(world.info) == {"qpos", "qvel", "finger_pos", "target_pos"}
        for name in ("qpos", "qvel", "finger_pos"):
            np.testing.assert_allclose(world.info[name], excerpt[name][t], rtol=0, atol=1e-9)


def test_frames_are_the_recorded_ones(excerpt, drawing):
    world = Reacher(image_size=64)
    for t, recorded in zip(excerpt["pixel_rows"], excerpt["pixels"], strict=True):
        frame, _ = world.reset(seed=0, options={"state": states_of(excerpt)[t]})
        np.testing.assert_array_equal(world.state, states_of(excerpt)[t])
        assert np.abs(frame.astype(float) - recorded).mean() < 1.0


def test_an_episode_ends_after_its_steps_and_not_before(drawing):
    world = Reacher(image_size=8, max_steps=3)
    world.reset(seed=1)
    ends = [world.step(np.ones(2, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    for _ in range(700):  # beyond the 20 s of the package's own limit
        world.advance(np.array((0.3, -0.2)))
    assert np.abs(world.state[2:]).max() > 0.1, "it goes on"


def test_the_target_is_reached_by_the_finger_alone(drawing):
    world = Reacher(image_size=8)
    world.reset(seed=2)
    target = world.info["target_pos"]
    away, rest = np.hypot(*target), np.arctan2(target[1], target[0])
    wrist = np.arccos(away**2 / (2 * 0.12**2) - 1)  # of two links of one length
    world.set_state([rest - wrist / 2, wrist, 0, 0])
    np.testing.assert_allclose(world.info["finger_pos"], target, atol=1e-12)
    assert world.step(np.zeros(2))[1] == 2
    world.set_state([rest - wrist / 2 + np.pi, wrist, 0, 0])
    assert world.step(np.zeros(2))[1] == 0


def test_an_episode_depends_on_its_seed_alone(drawing):
    world = Reacher(image_size=8, max_steps=4)
    episodes = [run_episode(world, make_policy("reacher"), seed) for seed in (5, 6, 5)]
    (frames, columns), (_, other), (again, same) = episodes
    assert frames.shape == (5, 8, 8, 3) and columns["action"].dtype == np.float32
    np.testing.assert_array_equal(frames, again)
    for name in ("qpos", "qvel", "target_pos"):
        np.testing.assert_array_equal(columns[name], same[name])
        assert (columns[name] != other[name]).any()


def test_starts_are_at_rest_all_over_what_the_joints_can_do():
    world = Reacher()
    drawn = []
    for seed in range(200):
        world._np_random = np.random.default_rng(seed)
        drawn.append(world._sample_start())
    shoulder, wrist = np.array(drawn)[:, :2].T
    assert not np.array(drawn)[:, 2:].any() and np.abs(wrist).max() <= LIMIT
    assert np.ptp(shoulder) > 6 and np.ptp(wrist) > 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 225}, "image_size is 8 to 224"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"render_mode": "human"}, "unknown render_mode"),
    ],
)
def test_settings_that_make_no_sense_are_the_users(settings, message):
    with pytest.raises(UserError, match=message):
        Reacher(**settings)


def test_states_and_actions_of_another_size_are_the_users():
    world = Reacher()
    for state in ([0, 0, 0], [0, 0, 0, np.nan]):
        with pytest.raises(UserError, match="a state of Reacher is 2 positions and 2 velocities"):
            world.set_state(state)
    for action in ([0], [0, np.inf]):
        with pytest.raises(UserError, match="an action of Reacher is 2 finite numbers"):
            world.advance(action)


def test_an_unknown_option_is_named(drawing):
    with pytest.raises(UserError, match=r"unknown reset options \['goal'\]; Reacher reads state"):
        Reacher(image_size=8).reset(options={"goal": 1})


def test_a_missing_package_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    scene.cache_clear()
    with pytest.raises(UserError, match=r"reacher needs the package dm-control.*pip install 'lewm\[envs\]'"):
        make_world("reacher", image_size=64)

"""Cube against an excerpt of stable-worldmodel's data, and what its interface promises."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm.datasets.collect import run_episode
from lewm.datasets.schema import open_source
from lewm.datasets.shard_writer import EpisodeWriter
from lewm.envs import make_policy, make_world
from lewm.envs.cube import CUBES, RECORDED, Cube, scene
from lewm.envs.cube_policy import Expert
from lewm.envs.cube_rules import CENTRE, VELOCITY
from lewm.envs.mujoco_gl import NONE, VARIABLE, load
from lewm.errors import UserError

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="needs ogbench, which has no build for Python 3.13 yet"
)


@pytest.fixture(scope="module")
def excerpt() -> dict[str, np.ndarray]:
    """A cube that is gripped and lifted."""
    with np.load(Path(__file__).parent / "data" / "cube_excerpt.npz") as file:
        return {name.replace(".", "/"): file[name] for name in file}


@pytest.fixture
def drawing():
    """Leaves a test out on a machine where nothing can draw."""
    load("cube")
    if os.environ.get(VARIABLE) == NONE:
        pytest.skip("no off-screen renderer for MuJoCo on this machine")


def states_of(excerpt) -> np.ndarray:
    return np.concatenate([excerpt["qpos"], excerpt["qvel"]], axis=1)


def begun(seed, **settings) -> Cube:
    """A world at the start of an episode that nothing has drawn."""
    world = Cube(**settings)
    world._np_random = np.random.default_rng(seed)
    world.set_state(world._sample_start())
    return world


def test_each_step_leads_from_the_recorded_state_to_the_next(excerpt):
    world, states = Cube(), states_of(excerpt)
    heights = excerpt["privileged/block_0_pos"][:, 2]
    assert np.ptp(heights) > 0.05, "the excerpt should hold a lifted cube"
    for t in range(len(states) - 1):
        world.set_state(states[t])
        world.advance(excerpt["action"][t])
        # What is not restored is the solver's first guess, which is iterated to a tolerance.
        np.testing.assert_allclose(world.state[: VELOCITY.start], excerpt["qpos"][t + 1], rtol=0, atol=2e-5)


def test_twenty_five_actions_lead_where_they_led(excerpt):
    world, states = Cube(), states_of(excerpt)
    world.set_state(states[0])
    for t in range(25):
        world.advance(excerpt["action"][t])
    np.testing.assert_allclose(world.state[CENTRE], excerpt["privileged/block_0_pos"][25], rtol=0, atol=1e-4)


def test_a_restored_state_is_exact_and_tells_what_was_recorded_there(excerpt):
    world = Cube()
    for t, state in enumerate(states_of(excerpt)):
        world.set_state(state)
        np.testing.assert_array_equal(world.state, state)
        info = world.info
        assert tuple(info) == RECORDED
        for name, value in info.items():
            np.testing.assert_allclose(value, excerpt[name][t], rtol=0, atol=1e-7, err_msg=name)


def test_a_restored_state_forgets_what_was_before(excerpt):
    state, action = states_of(excerpt)[20], excerpt["action"][20]
    fresh, used = begun(0), begun(1)
    for _ in range(5):
        used.advance(np.ones(5))
    for world in (fresh, used):
        world.set_state(state)
        world.advance(action)
    np.testing.assert_array_equal(fresh.state, used.state)


def test_worlds_that_take_turns_move_as_if_alone():
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 15, 5))
    alone = []
    for i in range(2):
        world = begun(i)
        alone += [[(world.advance(a), world.state)[1] for a in actions[i]]]
    worlds = [begun(0), begun(1)]
    for t in range(15):
        for i, world in enumerate(worlds):
            world.advance(actions[i, t])
            np.testing.assert_array_equal(world.state, alone[i][t])


def test_frames_are_the_recorded_ones(excerpt, drawing):
    world = Cube(image_size=64)
    for t, recorded in zip(excerpt["pixel_rows"], excerpt["pixels"], strict=True):
        frame, _ = world.reset(seed=0, options={"state": states_of(excerpt)[t]})
        assert np.abs(frame.astype(float) - recorded).mean() < 1.0


def test_worlds_of_one_process_draw_their_own_pictures(excerpt, drawing):
    states = states_of(excerpt)
    worlds = [Cube(image_size=64) for _ in range(2)]
    frames = [world.reset(seed=0, options={"state": states[t]})[0] for world, t in zip(worlds, (0, 39), strict=True)]
    assert np.abs(frames[0].astype(float) - frames[1]).mean() > 2
    np.testing.assert_array_equal(worlds[0].render(), frames[0])
    worlds[0].close()
    np.testing.assert_array_equal(worlds[1].render(), frames[1])


def test_starts_are_at_rest_with_the_cube_on_the_floor_and_the_gripper_above():
    states, targets, places = [], [], []
    for seed in range(30):
        world = begun(seed)
        states.append(world.state)
        everything = world.everything()
        targets.append(everything["privileged/target_block_pos"])
        places.append(everything["proprio/effector_pos"])
    centres = np.array(states)[:, CENTRE]
    assert not np.array(states)[:, VELOCITY].any() and (centres[:, 2] == 0.02).all()
    for found in (centres, np.array(targets)):
        assert (found[:, :2] >= CUBES[0]).all() and (found[:, :2] <= CUBES[1]).all()
        assert np.ptp(found[:, 0]) > 0.15 and np.ptp(found[:, 1]) > 0.4
    np.testing.assert_allclose(places, np.tile((0.425, 0.0, 0.275), (30, 1)), atol=1e-3)


def test_the_expert_lifts_the_cube_brings_it_to_its_target_and_has_a_new_one():
    world, policy = begun(3), make_policy("cube")
    assert isinstance(policy, Expert)
    policy.reset(3)
    target, heights, rewards = world.everything()["privileged/target_block_pos"], [], []
    for _ in range(200):
        world.advance(policy(world))
        heights.append(world.state[CENTRE][2])
        rewards.append(world._reward)
        if (world.everything()["privileged/target_block_pos"] != target).any():
            break
    assert max(heights) > 0.1 and max(rewards) == 1
    assert np.linalg.norm(world.state[CENTRE] - target) < 0.04, "it lies where it was asked for"
    assert len(heights) < 200


def test_an_experts_actions_depend_on_its_seed_alone():
    runs = []
    for seed in (1, 2, 1):
        world, policy = begun(0), Expert()
        np.random.seed(len(runs))  # noqa: NPY002 - the shared stream, which must not matter
        policy.reset(seed)
        actions = []
        for _ in range(12):
            actions.append(policy(world))
            world.advance(actions[-1])
        runs.append(np.stack(actions))
    np.testing.assert_array_equal(runs[0], runs[2])
    assert (runs[0] != runs[1]).any() and np.abs(runs[0]).max() <= 1 and runs[0].dtype == np.float32


def test_an_episode_is_recorded_with_its_columns_also_in_shards(tmp_path, drawing):
    world = Cube(image_size=16, max_steps=3)
    frames, columns = run_episode(world, make_policy("cube", "smooth"), 4)
    assert frames.shape == (4, 16, 16, 3) and columns["truncated"].tolist() == [False, False, False, True]
    assert not columns["terminated"].any()
    with EpisodeWriter(tmp_path / "data") as writer:
        writer.add(frames, columns, key="0")
    source = open_source(tmp_path / "data")
    for name in RECORDED:
        np.testing.assert_array_equal(source.column(name, 0), columns[name])


def test_states_and_actions_of_another_size_are_the_users():
    world = Cube()
    with pytest.raises(UserError, match="a state of Cube is 21 positions and 20 velocities"):
        world.set_state(np.zeros(40))
    with pytest.raises(UserError, match="an action of Cube is 5 finite numbers"):
        world.advance(np.zeros(4))


@pytest.mark.parametrize("module", ["dm_control", "ogbench"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "ogbench.manipspace.envs.cube_env", None)
    scene.cache_clear()
    with pytest.raises(UserError, match=rf"cube needs the package {module[:2]}.*pip install 'lewm\[envs\]'"):
        make_world("cube", image_size=64)

"""Push-T against an excerpt of stable-worldmodel's data, and what its interface promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm.cli import main
from lewm.datasets.schema import open_source
from lewm.envs import make_policy, make_world
from lewm.envs.push_t import ANGLE, BLOCK, NATIVE, VELOCITY, PushT
from lewm.envs.restored import restored_world
from lewm.errors import UserError

REST = np.array((100.0, 100.0, 300.0, 300.0, 1.0, 0.0, 0.0))

PARTS = ((60, 0, 30), (15, 30, 120))  # of the T: half width, from and to along its axis


@pytest.fixture(scope="module")
def excerpt() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "pusht_excerpt.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def predicted(excerpt):
    """Rows that are followed by one of their episode, the state after each restored one, and its contacts."""
    env, rows = PushT(image_size=8), np.setdiff1d(np.arange(len(excerpt["state"])), np.cumsum(excerpt["lengths"]) - 1)
    states, contacts = [], []
    for t in rows:
        env.reset(seed=0, options={"state": excerpt["state"][t]})
        info = env.step(excerpt["action"][t])[4]
        states.append(info["state"])
        contacts.append(info["n_contacts"])
    return rows, np.stack(states), np.array(contacts)


def turned(a, b):
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def test_the_agent_goes_where_it_went_also_through_the_walls(excerpt, predicted):
    rows, states, _ = predicted
    recorded = excerpt["state"][rows + 1]
    assert (recorded[:, :2] < 0).any() or (recorded[:, :2] > 512).any(), "the excerpt should hold an agent outside"
    np.testing.assert_allclose(states[:, :2], recorded[:, :2], atol=5e-5)  # float32 numbers of the files' controller
    np.testing.assert_allclose(states[:, VELOCITY], recorded[:, VELOCITY], atol=5e-4)


def test_the_block_goes_where_it_went_wherever_its_velocity_was_recorded_which_is_at_rest(excerpt, predicted):
    rows, states, contacts = predicted
    recorded, free = excerpt["state"][rows + 1], excerpt["n_contacts"][rows] == 0
    pushed = np.abs(recorded[:, BLOCK] - excerpt["state"][rows][:, BLOCK]).max(1) > 0.5
    assert (free & pushed).sum() >= 3 and (~free & pushed).sum() >= 15, "the excerpt should hold pushes"
    np.testing.assert_allclose(states[free][:, BLOCK], recorded[free][:, BLOCK], atol=0.05)
    assert turned(states[free, ANGLE], recorded[free, ANGLE]).max() < 1e-3
    np.testing.assert_array_equal(contacts[free], excerpt["n_contacts"][rows + 1][free])
    # pushed in the step before, it keeps an unrecorded velocity for one substep: 0.01 s at up to 500 units a second;
    # near a wall, where several contacts fight, that can decide where it goes
    far = ~free & ((recorded[:, BLOCK] > 135) & (recorded[:, BLOCK] < 377)).all(1)
    error = np.linalg.norm(states[far][:, BLOCK] - recorded[far][:, BLOCK], axis=1)
    assert np.median(error) < 1 and error.max() < 5
    assert error.max() > 0.5, "the excerpt should show it"


@pytest.mark.parametrize("size", [64, NATIVE])
def test_frames_are_the_recorded_ones_but_for_edges(excerpt, size):
    env = PushT(image_size=size)
    for state, recorded in zip(excerpt[f"state_{size}"], excerpt[f"pixels_{size}"], strict=True):
        env.set_state(state)
        difference = np.abs(env.render().astype(int) - recorded)
        assert difference.mean() < 0.2
        assert (difference.max(-1) > 8).mean() < 0.01


def test_a_reset_restores_a_state_exactly_whatever_happened_before(excerpt):
    env = PushT(image_size=16)
    fresh = PushT(image_size=16)
    for state, action in zip(excerpt["state"][::9], excerpt["action"][::9], strict=True):
        frame, info = env.reset(seed=0, options={"state": state})
        np.testing.assert_allclose(info["state"], state, rtol=0, atol=1e-9)
        expected, _ = fresh.reset(seed=7, options={"state": state})
        np.testing.assert_array_equal(frame, expected)
        for _ in range(4):  # the first world goes on, the second is new: contacts must leave no trace
            env.step(action)
        env.set_state(state)
        np.testing.assert_array_equal(env.step(action)[4]["state"], fresh.step(action)[4]["state"])
        fresh = PushT(image_size=16)


def test_an_angle_is_given_back_within_one_turn_and_the_block_pose_is_not_wrapped():
    env = PushT(image_size=16)
    env.set_state((100, 100, 300, 300, -0.5, 0, 0))
    assert env.state[ANGLE] == pytest.approx(2 * np.pi - 0.5)
    env.reset(options={"state": (250, 365, 300, 260, 0, 0, 0)})
    for _ in range(8):  # from the left against the stem's end
        info = env.step(np.array((0.6, 0.0)))[4]
    assert info["block_pose"][2] < -0.2
    assert 0 <= info["state"][ANGLE] < 2 * np.pi
    assert turned(info["state"][ANGLE], info["block_pose"][2]) < 1e-9


def test_the_light_green_t_is_drawn_and_the_goal_state_is_not():
    env = PushT()
    far = np.array((30.0, 30.0, 60.0, 400.0, 0.0, 0.0, 0.0))
    here, _ = env.reset(options={"state": far, "goal_state": REST})
    there, _ = env.reset(options={"state": far, "goal_state": far})
    np.testing.assert_array_equal(here, there)
    y, x = np.argwhere((here == (144, 238, 144)).all(-1)).mean(0) / NATIVE * 512
    # below and left of (256, 256): the T's stem points there after an eighth of a turn
    assert 190 < x < 256 < y < 320


def test_info_has_the_columns_of_the_example_files():
    env = PushT(image_size=16)
    _, info = env.reset(seed=0, options={"state": (1, 2, 300, 300, 0.5, 6, 7), "goal_state": REST})
    np.testing.assert_allclose(info["proprio"], (1, 2, 6, 7))
    np.testing.assert_allclose(info["pos_agent"], (1, 2))
    np.testing.assert_allclose(info["vel_agent"], (6, 7))
    np.testing.assert_allclose(info["block_pose"], (300, 300, 0.5))
    np.testing.assert_array_equal(info["goal_state"], REST)
    assert info["n_contacts"] == 0 and info["state"].dtype == np.float64
    info["state"][:] = 0  # a copy
    assert env.state[2] == pytest.approx(300)


def turned_by(angle):
    return np.array([*REST[:ANGLE], REST[ANGLE] + angle, 0, 0])


def test_an_episode_terminates_at_its_goal_and_is_truncated_at_max_steps():
    env = PushT(image_size=8, max_steps=2)
    env.reset(options={"state": REST, "goal_state": turned_by(0.3)})
    _, reward, *ends, _ = env.step(np.zeros(2))
    assert reward == pytest.approx(-0.3) and ends == [True, False]
    env.reset(options={"state": REST, "goal_state": turned_by(0.4)})
    assert env.step(np.zeros(2))[2:4] == (False, False)
    assert env.step(np.zeros(2))[2:4] == (False, True)


def test_random_starts_are_at_rest_inside_the_window_and_never_inside_the_block():
    env, close = PushT(image_size=8), []
    for seed in range(200):
        state = env.reset(seed=seed)[1]["state"]
        assert (state[VELOCITY] == 0).all() and (state[:2] >= 50).all() and (state[:2] <= 450).all()
        assert (state[BLOCK] >= 100).all() and (state[BLOCK] <= 400).all()
        # the agent as the block sees it, and how far it is from bar (120 x 30) and stem (30 x 90) of the T
        cos, sin = np.cos(state[ANGLE]), np.sin(state[ANGLE])
        x, y = np.array([[cos, sin], [-sin, cos]]) @ (state[:2] - state[BLOCK])
        bar, stem = (np.hypot(max(abs(x) - w, 0), max(low - y, y - high, 0)) for w, low, high in PARTS)
        close.append(min(bar, stem))
    assert min(close) >= 15 - 1e-6, "the agent's radius"
    assert min(close) < 30, "some start should be beside the block"


def test_equal_seeds_give_equal_trajectories_and_others_do_not():
    def walk(seed, name):
        env, policy = make_world("push_t", image_size=8), make_policy("push_t", name)
        _, info = env.reset(seed=seed)
        policy.reset(seed)
        return np.stack([info["state"], *(env.step(policy(env))[4]["state"] for _ in range(8))])

    for name in ("near_block", "random"):
        np.testing.assert_array_equal(walk(3, name), walk(3, name))
        assert not np.array_equal(walk(3, name), walk(4, name))


def test_the_policy_keeps_its_targets_near_the_block():
    env, policy = make_world("push_t", image_size=8), make_policy("push_t")
    env.reset(seed=1, options={"state": (60, 60, 380, 380, 0, 0, 0)})
    moved, start = [], env.state
    for _ in range(120):
        action = policy(env)
        target, block = env.state[:2] + 100 * action, env.state[BLOCK]
        moved.append((action, np.abs(target - block).max()))
        env.step(action)
    apart = np.array([away for _, away in moved])
    assert apart[0] > 101 and (apart[30:] <= 100.01).mean() > 0.95  # one that is far must come nearer first
    assert np.linalg.norm(env.state[BLOCK] - start[BLOCK]) > 5
    assert np.std([action for action, _ in moved[20:]]) == pytest.approx(0.5, abs=0.12)  # as the example files


@pytest.mark.parametrize(
    "wrong",
    [
        lambda env: env.set_state((1, 2, 3)),
        lambda env: env.set_state((np.nan, 0, 0, 0, 0, 0, 0)),
        lambda env: env.set_state((1e12, 0, 0, 0, 0, 0, 0)),
        lambda env: env.reset(options={"state": np.zeros((1, 7))}),
        lambda env: env.reset(options={"goal": REST}),
        lambda env: env.step(np.zeros(3)),
        lambda env: env.step(np.array((np.nan, 0))),
        lambda env: PushT(image_size=225),
        lambda env: PushT(max_steps=0),
        lambda env: PushT(render_mode="human"),
    ],
)
def test_a_request_that_cannot_be_honoured_is_a_user_error(wrong):
    with pytest.raises(UserError):
        wrong(PushT(image_size=16))


def test_collecting_gives_episodes_that_the_world_repeats(tmp_path):
    argv = ["collect", "push_t", "--out", str(tmp_path / "a"), "--episodes", "2", "--image-size", "16", "--seed", "3"]
    assert main(argv) == 0
    source, world = open_source(tmp_path / "a"), restored_world("push_t", image_size=16)
    assert source.lengths.tolist() == [151, 151] and source.columns["n_contacts"].shape == ()
    free = 0
    for e in range(2):
        state, contacts = source.column("state", e), source.column("n_contacts", e)
        for t in np.flatnonzero(contacts[:-1] == 0)[::8]:
            frame = world.restore(state[t])
            (recorded,) = source.frames(e, np.array([t]))
            np.testing.assert_array_equal(frame, recorded)
            _, after = world.step(source.actions(e)[t])
            np.testing.assert_allclose(after, state[t + 1], atol=0.05)
            free += 1
    assert free > 10


def test_a_missing_package_is_named_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    monkeypatch.delitem(sys.modules, "gym_pusht.envs.pusht", raising=False)
    assert main(["collect", "push_t", "--out", str(tmp_path / "a"), "--episodes", "1"]) == 2
    expected = "push_t needs the package gym-pusht, which is not installed: pip install 'lewm[envs]'"
    assert capsys.readouterr().err == f"lewm: error: {expected}\n"
    assert not (tmp_path / "a").exists()


def test_a_missing_system_library_is_named(tmp_path, monkeypatch):
    (tmp_path / "gym_pusht").mkdir()
    lost = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"
    (tmp_path / "gym_pusht" / "__init__.py").write_text(lost)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "gym_pusht"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        UserError, match=r"cannot be imported \(libGL\.so\.1: .*install the system library libGL\.so\.1$"
    ):
        PushT(image_size=16)


def test_nothing_is_imported_before_the_world_is_made_and_no_banner_is_printed():
    code = (
        "import sys; from lewm.envs import make_world, policies_of; from lewm.envs.rules import rules_of; "
        "rules_of('push_t', 'strict'); policies_of('push_t'); "
        "assert not {'gym_pusht', 'pygame', 'cv2'} & set(sys.modules); make_world('push_t', image_size=16).render(); "
        "assert 'pygame' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

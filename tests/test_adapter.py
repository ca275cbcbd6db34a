"""Gymnasium environments as worlds: what is seen, how they are put into a state, what is refused."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from conftest import TINY
from gymnasium import spaces

from lewm.checkpoint import save
from lewm.cli import main
from lewm.clip import Interface
from lewm.datasets.schema import open_source
from lewm.envs import make_policy, make_world
from lewm.envs.adapter import LONGEST
from lewm.envs.common_policy import SmoothActions
from lewm.envs.picture import reduced
from lewm.envs.restored import restored_world
from lewm.envs.rules import rules_of
from lewm.errors import UserError
from lewm.model.world_model import WorldModel


class Slider(gymnasium.Env):
    """A bright column that slides along a dark picture; how its state is set, a subclass says."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = spaces.Box(np.array((-0.1, 0.0)), np.array((0.3, 2.0)), dtype=np.float64)
    observation_space = spaces.Box(-np.inf, np.inf, (1,))

    def __init__(self, render_mode=None):
        self.render_mode, self.x, self.seen = render_mode, 0.0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(0, 40))
        return np.array([self.x]), {"x": self.x, "name": "slider", "pair": np.arange(2), "state": 7}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} {action.dtype}"
        self.seen.append(action)
        self.x += 10 * float(action[0])
        info = {"x": self.x, "name": "slider", "extra": 1.0, "pair": np.arange(2 if self.x < 60 else 3)}
        return np.array([self.x]), 0.5, self.x > 90, False, info

    def render(self):
        picture = np.zeros((40, 100, 3), np.uint8)
        picture[:, int(np.clip(self.x, 0, 99))] = 250
        return picture


class WithMethods(Slider):
    def get_state(self):
        return np.array([[self.x]], np.float32)

    def set_state(self, state):
        assert state.shape == (1, 1) and state.dtype == np.float32
        self.x = float(state[0, 0])


class Data:
    qpos, qvel = np.zeros(1), np.zeros(2)


class LikeMuJoCo(Slider):
    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.data = Data()

    def set_state(self, qpos, qvel):
        assert qpos.shape == (1,) and qvel.shape == (2,)
        self.data.qpos, self.data.qvel, self.x = qpos, qvel, float(qpos[0])


class WithAttribute(Slider):
    state = property(lambda self: np.array([self.x]), lambda self, state: setattr(self, "x", float(state[0])))


class ReadOnly(Slider):
    state = property(lambda self: np.array([self.x]))


class Unwritten(Slider):
    def get_state(self):
        raise NotImplementedError


class Observed(Slider):
    """Its `state` is a copy of what it sees: it can be written, and nothing follows from it."""

    def reset(self, **settings):
        seen = super().reset(**settings)
        self.state = np.array([self.x])
        return seen

    def step(self, action):
        seen = super().step(action)
        self.state = np.array([self.x])
        return seen

    def render(self):
        self.x, before = float(self.state[0]), self.x
        picture = super().render()
        self.x = before
        return picture


class Undrawable(Slider):
    def render(self):
        raise RuntimeError("no\ndisplay")


class Discrete(Slider):
    action_space = spaces.Discrete(3)


class Boundless(Slider):
    action_space = spaces.Box(-np.inf, np.inf, (2,))


class Blind(Slider):
    def render(self):
        return None


KINDS = (WithMethods, LikeMuJoCo, WithAttribute, ReadOnly, Unwritten, Observed)
KINDS += (Undrawable, Discrete, Boundless, Blind, Slider)


@pytest.fixture(scope="module", autouse=True)
def registered():
    for kind in KINDS:
        gymnasium.register(f"test/{kind.__name__}-v0", entry_point=kind)  # type: ignore[arg-type]
    yield
    for kind in KINDS:
        del gymnasium.registry[f"test/{kind.__name__}-v0"]


def world_of(kind, size=20):
    return make_world(f"test/{kind.__name__}-v0", image_size=size)


@pytest.mark.parametrize(
    ("kind", "state"), [(WithMethods, [33.0]), (LikeMuJoCo, [33.0, 1, 2]), (WithAttribute, [33.0])]
)
def test_a_state_is_set_in_the_way_that_the_environment_has(kind, state):
    world = world_of(kind)
    frame, info = world.reset(seed=1, options={"state": np.array(state)})
    np.testing.assert_array_equal(info["state"], state)
    np.testing.assert_array_equal(world.state, state)
    assert world.state.dtype == np.float64
    assert frame[:, :, 0].max(0).argmax() == 33 * 20 // 100, "the picture shows it"
    for wrong in (state[:-1], [state], [np.nan] * len(state)):
        with pytest.raises(UserError, match="a state of test/"):
            world.reset(options={"state": wrong})


@pytest.mark.parametrize("kind", [Slider, ReadOnly, Unwritten])
def test_without_a_setter_one_can_collect_but_not_plan(kind, tmp_path):
    name = f"test/{kind.__name__}-v0"
    argv = ["collect", name, "--out", str(tmp_path / "a"), "--episodes", "2", "--image-size", "16"]
    assert main(argv) == 0
    source = open_source(tmp_path / "a")
    assert "state" not in source.columns and {"x", "pair"} <= set(source.columns)
    for ask in (lambda w: w.restore(np.zeros(1)), lambda w: w.world.state):
        with pytest.raises(UserError, match="cannot be put into a state, which planning needs: it would take methods"):
            ask(restored_world(name, image_size=16))


def test_the_picture_is_squeezed_to_a_square_by_averaging_areas():
    world = world_of(WithMethods)
    frame, _ = world.reset(options={"state": [33.0]})
    expected = np.zeros((20, 20, 3))
    expected[:, 6] = 250 / 5  # five columns become one
    np.testing.assert_array_equal(frame, expected)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    blocks = picture.reshape(12, 2, 12, 3, 3).mean((1, 3))
    assert np.abs(reduced(picture, 12) - blocks).max() <= 1  # rounded twice
    with pytest.raises(UserError, match="pictures of test/Slider-v0 are 40 x 100; --image_size 64 is larger"):
        world_of(Slider, 64)


def test_actions_are_float32_within_the_environments_own_bounds():
    world = world_of(Slider)
    assert world.action_space.dtype == np.float32
    world.reset(seed=0)
    world.step(world.action_space.high)  # float32's 0.3 is above the environment's
    world.step(np.array((-5.0, 5.0)))
    seen = np.array(world.unwrapped._env.unwrapped.seen)
    np.testing.assert_array_equal(seen[1], (-0.1, 2.0))
    assert seen[0, 0] == 0.3 and seen.dtype == np.float64
    for wrong in (np.zeros(3), np.array((np.nan, 0))):
        with pytest.raises(UserError, match="2 finite numbers"):
            world.step(wrong)


def test_columns_are_the_numbers_that_are_there_from_the_reset_on():
    world = world_of(WithMethods)
    _, info = world.reset(seed=0, options={"state": [33.0]})
    assert set(info) == {"state", "x", "pair"} and info["state"].tolist() == [33.0]
    world.set_state([58.0])
    _, _, _, _, info = world.step(np.array((0.1, 0)))
    assert set(info) == {"state", "x", "pair"} and info["x"] == pytest.approx(59) and info["pair"].tolist() == [0, 1]
    _, _, _, _, info = world.step(np.array((0.3, 0)))
    assert np.isnan(info["pair"]).tolist() == [True, True], "of another shape now"


def test_only_the_environment_ends_an_episode_but_one_without_a_limit_is_cut():
    world = world_of(WithMethods)
    world.reset(options={"state": [89.5]})
    assert world.step(np.array((0.3, 0)))[2:4] == (True, False)
    assert world.step(np.array((-0.1, 0)))[2:4] == (True, False)  # and goes on
    world.reset(options={"state": [10.0]})
    ends = [world.step(np.array((0.0, 0)))[3] for _ in range(LONGEST)]
    assert ends.index(True) == LONGEST - 1
    assert make_world("Pendulum-v1", image_size=16)._env.spec.max_episode_steps == 200


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("test/Discrete-v0", "actions of test/Discrete-v0 are Discrete"),
        ("test/Boundless-v0", "no finite bounds"),
        ("test/Blind-v0", "test/Blind-v0 has no picture: render.. gives NoneType"),
        ("test/Undrawable-v0", "test/Undrawable-v0 cannot be drawn: no display"),
        ("CartPole-v1", "actions of CartPole-v1 are Discrete"),
        (":Pendulum-v1", "no Gymnasium environment ':Pendulum-v1'"),
        ("a:b:Foo-v0", "no Gymnasium environment 'a:b:Foo-v0'"),
        ("Nothing-v3", "no Gymnasium environment 'Nothing-v3'"),
        ("nobody/Nothing", "no Gymnasium environment 'nobody/Nothing'"),
        ("no_such_package:a/B-v0", "no Gymnasium environment 'no_such_package:a/B-v0'"),
    ],
)
def test_what_cannot_be_a_world_is_refused_in_one_line(name, match, tmp_path, capsys):
    assert main(["collect", name, "--out", str(tmp_path / "a"), "--episodes", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("lewm: error: ")
    with pytest.raises(UserError, match=match):
        make_world(name, image_size=16)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("size", [0, -3, 7])
def test_a_picture_has_a_side_of_at_least_8(size, tmp_path, capsys):
    argv = ["collect", "Pendulum-v1", "--out", str(tmp_path / "a"), "--episodes", "1", f"--image_size={size}"]
    assert main(argv) == 2
    assert f"image_size is {size}" in capsys.readouterr().err.replace("8 or more, not ", "")
    with pytest.raises(UserError, match=f"image_size is 8 or more, not {size}"):
        make_world("Pendulum-v1", image_size=size)


def test_a_state_that_is_but_an_observation_is_refused_when_planning(tmp_path, capsys):
    name, data = "test/Observed-v0", str(tmp_path / "data")
    assert main(["collect", name, "--out", data, "--episodes", "3", "--image-size", "16", "--policy", "random"]) == 0
    interface = Interface(image_size=16, frameskip=5, history=2, action_mean=(0.1, 1.0), action_std=(0.1, 0.5))
    save(WorldModel(interface, **TINY).eval(), checkpoint := tmp_path / "checkpoint.ckpt")
    argv = ["plan", str(checkpoint), "--env", name, "--data", data, "--out", str(tmp_path / "out"), "--near", "1"]
    argv += ["--split", "all", "--pairs", "3", "--seeds", "1", "--solver", "random", "--budget", "10", "--offset", "5"]
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "do not lead to its next states" in error and error.count("\n") == 1


def test_smooth_actions_are_slow_and_fill_the_bounds():
    world, policy = world_of(Slider), make_policy("test/Slider-v0")
    assert isinstance(policy, SmoothActions)
    policy.reset(3)
    actions = np.stack([policy(world) for _ in range(6000)])
    x = (actions - (0.1, 1.0)) / (0.2, 1.0)  # on the scale of -1 to 1
    assert actions.dtype == np.float32 and np.abs(x).max() < 1 + 1e-6
    assert np.mean(np.abs(x) > 1 - 1e-6) == pytest.approx(0.21, abs=0.03)
    inside = np.abs(x[:-1]) < 0.5
    assert np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1] == pytest.approx(0.9, abs=0.03) and inside.any()
    policy.reset(3)
    np.testing.assert_array_equal(policy(world), actions[0])
    firsts = []
    for seed in range(400):
        policy.reset(seed)
        firsts.append(policy(world))
    assert np.std((np.array(firsts) - (0.1, 1.0)) / (0.2, 1.0)) > 0.55, "as spread out at once"


def test_nearness_must_be_given_and_is_over_all_numbers_of_the_state():
    with pytest.raises(
        UserError, match="in world 'Pendulum-v1' is not defined; give --near DISTANCE, over the numbers"
    ):
        rules_of("Pendulum-v1", "strict")
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UserError, match="--near is"):
            rules_of("Pendulum-v1", "strict", wrong)
    rules, goal = rules_of("Pendulum-v1", "strict", 0.5), np.array((1.0, 2.0))
    judge = rules.judge(goal)
    assert [judge.see(goal + by) for by in ((0.4, 0.4), (0.5, 0), (0.3, 0.3), (9, 9))] == [False, False, True, True]
    assert rules.reason(goal, goal + 0.1) == "solved_at_start" and rules.reason(goal, goal + 1) is None
    assert rules.distance(goal, goal + np.array((3, 4))) == 5
    np.testing.assert_array_equal(rules.start(goal), goal)


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pendulum") / "data"
    argv = ["collect", "Pendulum-v1", "--out", str(folder), "--episodes", "2", "--image-size", "16", "--seed", "5"]
    assert main(argv) == 0
    return folder


def test_pendulum_repeats_what_was_collected(pendulum):
    source, world = open_source(pendulum), restored_world("Pendulum-v1", image_size=16)
    assert source.lengths.tolist() == [201] * 2 and source.columns["state"].shape == (2,)
    state, actions = source.column("state", 1), source.actions(1)
    for t in range(0, 190, 37):
        world.restore(state[t])
        frame, after = world.step(actions[t])
        np.testing.assert_array_equal(after, state[t + 1])
        np.testing.assert_array_equal(frame, source.frames(1, np.array([t + 1]))[0])


def test_planning_in_pendulum_from_the_command_line(pendulum, tmp_path, capsys):
    interface = Interface(image_size=16, frameskip=5, history=2, action_mean=(0.0,), action_std=(1.2,))
    checkpoint, out = tmp_path / "checkpoint.ckpt", tmp_path / "out"
    save(WorldModel(interface, **TINY).eval(), checkpoint)
    argv = ["plan", str(checkpoint), "--env", "Pendulum-v1", "--data", str(pendulum), "--out", str(out)]
    argv += ["--split", "all", "--pairs", "2", "--seeds", "1", "--solver", "random", "--budget", "10", "--offset", "5"]
    assert main(argv) == 2
    assert "give --near DISTANCE" in capsys.readouterr().err
    assert main([*argv, "--near", "2.5"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["env"] == "Pendulum-v1" and result["near"] == 2.5 and result["n"] == 2
    assert result["distance"]["start_median"] > 2.5


def test_data_of_another_world_are_refused_when_planning(pendulum, tmp_path, capsys):
    interface = Interface(image_size=16, frameskip=5, history=2, action_mean=(0.0,), action_std=(1.2,))
    save(WorldModel(interface, **TINY).eval(), checkpoint := tmp_path / "checkpoint.ckpt")
    argv = ["plan", str(checkpoint), "--data", str(pendulum), "--out", str(tmp_path / "out"), "--near", "1", "--env"]
    for env, match in (("test/LikeMuJoCo-v0", "has 3 numbers"), ("test/Slider-v0", "cannot be put into a state")):
        assert main([*argv, env]) == 2
        assert match in capsys.readouterr().err

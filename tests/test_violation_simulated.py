"""What each simulated violation does to the world, and what it asks of one."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from lewm.datasets.violation import REGISTRY, SimulatedViolation, kinds_of
from lewm.datasets.violation_simulated import COLOUR_DISTANCE, TELEPORT_DISTANCE, far_place, simulated_kinds
from lewm.envs.two_room import TwoRoom
from lewm.errors import UserError

KINDS = [
    "moved",
    "vanished",
    "through_wall",
    "heavier",
    "slippery",
    "agent_colour",
    "wall_colour",
    "background_colour",
]


class Dial(gymnasium.Env):
    """A toy: a bright column that an action turns; of all setters it has `set_state` and `sample_state` alone."""

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(0, 255, (4, 128, 3), np.uint8)
        self.state = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(0, 128, 1).astype(np.float32)
        return self.render(), {}

    def step(self, action):
        self.state = (self.state + 3 * action) % 128
        return self.render(), 0.0, False, False, {}

    def render(self):
        frame = np.zeros((4, 128, 3), np.uint8)
        frame[:, int(self.state[0]) % 128] = 255
        return frame

    def set_state(self, state):
        self.state = np.array(state, np.float32)

    def sample_state(self, rng):
        return rng.uniform(0, 128, 1).astype(np.float32)


def world_at(state, size=224) -> TwoRoom:
    env = TwoRoom(image_size=size)
    env.reset(seed=0, options={"state": state})
    return env


def intervene(env, name, seed=0):
    simulated_kinds(env, [name])[0].intervene(env, np.random.default_rng(seed))
    return env


def test_all_kinds_are_registered_with_a_nature_and_no_recorded_kind_is_among_them():
    kinds = kinds_of(SimulatedViolation)
    assert [kind.name for kind in kinds] == KINDS
    assert {kind.name for kind in kinds if kind.nature == "visual"} == {n for n in KINDS if n.endswith("_colour")}
    assert {kind.name for kind in kinds if kind.lasts} == {"through_wall", "heavier", "slippery"}
    for kind in kinds:
        assert REGISTRY[kind.name] is type(kind) and not hasattr(kind, "disturb")


def test_a_moved_agent_is_far_away_at_a_legal_place():
    for seed in range(50):
        env = intervene(world_at((60, 100), 8), "moved", seed)
        assert env.legal_state(env.state) and np.linalg.norm(env.state - (60, 100)) >= TELEPORT_DISTANCE


def test_a_vanished_agent_stays_where_it_is():
    env = intervene(world_at((60, 100)), "vanished")
    assert (env.render()[100, 60] == 255).all() and env.state.tolist() == [60, 100]


@pytest.mark.parametrize(
    ("name", "after"), [("through_wall", (102, 155)), ("heavier", (99.5, 152.5)), ("slippery", (99.5, 155))]
)
def test_other_laws_change_no_frame_until_the_next_step(name, after):
    env = world_at((97, 150))
    before = env.render()
    np.testing.assert_array_equal(intervene(env, name).render(), before)
    env.step(np.ones(2))
    assert tuple(env.state) == after


def test_a_heavier_agent_goes_half_as_far_and_a_slippery_one_slides_on():
    env = intervene(world_at((50, 150), 8), "heavier")
    env.step(np.array((1.0, 0.0)))
    assert env.state.tolist() == [52.5, 150]
    env = world_at((50, 150), 8)
    env.step(np.array((1.0, 0.0)))
    intervene(env, "slippery").step(np.zeros(2))
    assert env.state.tolist() == [57.5, 150]


@pytest.mark.parametrize("thing", ["agent", "wall", "background"])
def test_paint_changes_its_object_alone_to_a_colour_far_from_all_and_moves_nothing(thing):
    for seed in range(10):
        env = world_at((60, 100), 8)
        own = env.colours
        intervene(env, f"{thing}_colour", seed)
        changed = {name for name, colour in env.colours.items() if colour != own[name]}
        assert changed == {name for name, colour in own.items() if colour == own[thing]} and env.state.tolist() == [
            60,
            100,
        ]
        apart = np.linalg.norm(np.array(list(own.values()), float) - env.colours[thing], axis=1)
        assert apart.min() >= COLOUR_DISTANCE


def test_every_kind_is_undone_by_reset():
    fresh = world_at((97, 150), 16)
    frames = [fresh.render(), *(fresh.step(np.ones(2))[0] for _ in range(3))]
    for name in KINDS:
        env = intervene(world_at((97, 150), 16), name)
        env.step(np.ones(2))
        env.reset(seed=0, options={"state": (97, 150)})
        again = [env.render(), *(env.step(np.ones(2))[0] for _ in range(3))]
        np.testing.assert_array_equal(frames, again, err_msg=name)


def test_all_means_what_this_world_can_do():
    assert [kind.name for kind in simulated_kinds(world_at((60, 60), 8), ["all"])] == KINDS
    assert [kind.name for kind in simulated_kinds(Dial(), ["all"])] == ["moved"]
    with pytest.raises(UserError, match="object has no setter"):
        simulated_kinds(object(), ["all"])


class Sluggish(Dial):
    """Has mass, but neither friction nor walls."""

    colours = {"needle": (255, 255, 255)}

    def set_physics(self, *, speed=1.0):
        self.speed = speed

    def set_colour(self, name, rgb): ...


@pytest.mark.parametrize(
    ("world", "name", "lack"),
    [
        (Dial, "vanished", "set_visible"),
        (Dial, "heavier", "set_physics"),
        (Dial, "agent_colour", "colours"),
        (Sluggish, "slippery", r"set_physics\(momentum=...\)"),
        (Sluggish, "through_wall", r"set_physics\(walls=...\)"),
        (Sluggish, "wall_colour", "colour of 'wall'"),
        (object, "moved", "state"),
    ],
)
def test_a_world_without_the_setter_is_refused_in_one_line_naming_kind_and_world(world, name, lack):
    with pytest.raises(UserError, match=f"^'{name}' cannot be made in {world.__name__}: it has no {lack}") as caught:
        simulated_kinds(world(), [name])
    assert "\n" not in str(caught.value)


def test_a_world_that_has_some_laws_can_have_those_changed():
    assert [kind.name for kind in simulated_kinds(Sluggish(), ["all"])] == ["moved", "heavier"]


@pytest.mark.parametrize("names", [["nothing"], ["teleport"], ["all", "moved"], ["unperturbed"], []])
def test_kinds_that_are_not_made_in_simulators_are_refused(names):
    with pytest.raises(UserError, match=r"no violation .* is made this way|no kind of event is named"):
        simulated_kinds(TwoRoom(image_size=8), names)


def test_kinds_named_twice_are_made_once_in_the_order_named():
    kinds = simulated_kinds(TwoRoom(image_size=8), ["heavier", "moved", "heavier"])
    assert [kind.name for kind in kinds] == ["heavier", "moved"]


def test_a_world_too_small_to_teleport_in_says_so_instead_of_searching_for_ever():
    world = Dial()
    world.sample_state = lambda rng: rng.uniform(0, 1, 1)
    with pytest.raises(UserError, match=r"no state of Dial .* is 40 from"):
        far_place(world, np.random.default_rng(0))


def test_a_world_of_so_many_colours_that_none_is_left_says_so():
    class Rainbow(Dial):
        def __init__(self) -> None:
            shades = (0, 128, 255)
            self.colours = {f"{r}-{g}-{b}": (r, g, b) for r in shades for g in shades for b in shades}
            self.colours["agent"] = (1, 2, 3)

        def set_colour(self, name, rgb): ...

    with pytest.raises(UserError, match="no colour is 150 away from all 28 of Rainbow"):
        intervene(Rainbow(), "agent_colour")

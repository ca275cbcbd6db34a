"""Behaviour policies that collect data in `TwoRoom`: called with the environment, they return an action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from lewm.envs.common_policy import RandomActions, Seeded
from lewm.envs.two_room import DOOR_Y, REACH, WALL_X, TwoRoom

DOOR = np.array((WALL_X, DOOR_Y), np.float32)
DOOR_NEAR = 10.5  # from this distance of the door's centre on, head for what lies behind it
NEAR_PLACE = 5.0  # a wanderer has arrived


def direction(state: np.ndarray, goal: np.ndarray, *, through_door: bool = True) -> np.ndarray:
    """Unit vector towards `goal`, by the door's centre if the wall stands between (0 at the goal)."""
    apart = (state[0] > WALL_X) != (goal[0] > WALL_X)
    if through_door and apart and np.linalg.norm(DOOR - state) > DOOR_NEAR:
        goal = DOOR
    away = goal - state
    return away / max(float(np.linalg.norm(away)), 1e-8)


class NoisyExpert(Seeded):
    """Walks to the target under heavy noise: `a = clip(direction + N(0, noise^2), -1, 1)`.

    At the default noise nearly two thirds of all numbers are exactly -1 or 1.
    """

    def __init__(self, *, noise: float = 2.0) -> None:
        super().__init__()
        self.noise = noise

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        world = _two_room(env)
        action = direction(world.state, world.goal_state) + self.rng.normal(0.0, self.noise, 2)
        return np.clip(action, -1, 1).astype(np.float32)


class Wanderer(Seeded):
    """Walks from one random place to the next at random speeds, so that rooms, border, wall and door are all visited.

    A new place is drawn on arrival or after `patience` steps. Places in the other room are kept with probability
    `cross` only, or most of the time would go by at the door. A share `blind` of the walks ignores the door and so
    runs into the wall when the place is behind it.
    """

    def __init__(self, *, noise: float = 0.5, patience: int = 40, cross: float = 0.4, blind: float = 0.2) -> None:
        self.noise, self.patience, self.cross, self.blind = noise, patience, cross, blind
        super().__init__()

    def reset(self, seed: int) -> None:
        """Start an episode, without a place to go to."""
        super().reset(seed)
        self.steps_left = 0

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        world = _two_room(env)
        if self.steps_left == 0 or np.linalg.norm(self.place - world.state) < NEAR_PLACE:
            self.place = self._draw_place(world)
            self.speed, self.steps_left = self.rng.uniform(0.3, 1.5), self.patience
            self.through_door = self.rng.random() >= self.blind
        self.steps_left -= 1
        towards = direction(world.state, self.place, through_door=self.through_door)
        action = self.speed * towards + self.rng.normal(0.0, self.noise, 2)
        return np.clip(action, -1, 1).astype(np.float32)

    def _draw_place(self, world: TwoRoom) -> np.ndarray:
        """A legal place, on the border in a good part of draws: walks between inner places would seldom touch it."""
        while True:
            place = np.clip(self.rng.uniform(REACH[0] - 15, REACH[1] + 15, 2), *REACH).astype(np.float32)
            other_room = (place[0] > WALL_X) != (world.state[0] > WALL_X)
            if world.legal_state(place) and (not other_room or self.rng.random() < self.cross):
                return place


POLICIES: dict[str, type] = {"expert": NoisyExpert, "wander": Wanderer, "random": RandomActions}


def _two_room(env: gymnasium.Env[Any, Any]) -> TwoRoom:
    """The TwoRoom inside any wrappers."""
    world = env.unwrapped
    assert isinstance(world, TwoRoom), f"this policy walks in TwoRoom only, not in {type(world).__name__}"
    return world

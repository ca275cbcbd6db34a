"""What counts as solved in Two-Room. States are (x, y) in the units of a 224 x 224 picture."""

from __future__ import annotations

import numpy as np

from lewm.envs.predicates import Condition, Near, Rules, State, distance
from lewm.envs.two_room import DONE_DISTANCE, DOOR_SPAN, WALL_X, WALL_ZONE


class NearByTheDoor(Near):
    """Within `near` of the goal, in its room, without ever having been in the wall or passed through it.

    The wall is passed lawfully where both ends of the step are at the door's height; so the world's own steps are.
    """

    def __init__(self, goal: State, near: float) -> None:
        super().__init__(goal, near)
        self.last: State | None = None
        self.lawful = True

    def __call__(self, state: State) -> bool:
        """Now, and lawfully until now."""
        last = state if self.last is None else self.last
        passed = side(last) != side(state) and not (at_door(last) and at_door(state))
        self.lawful = self.lawful and not passed and not in_wall(state)
        self.last = np.array(state)
        return self.lawful and side(state) == side(self.goal) and super().__call__(state)


class TwoRoomRules(Rules):
    """Two-Room under one protocol."""

    columns = {"state": 2}
    unit = "units of a 224 x 224 picture"
    near = {"strict": 8.0, "moderate": 16.0, "paper": DONE_DISTANCE}

    def condition(self, goal: State) -> Condition:
        """Near the goal; under `strict` after a lawful crossing."""
        kind = NearByTheDoor if self.protocol == "strict" else Near
        return kind(goal, self.near[self.protocol])

    def distance(self, state: State, goal: State) -> float:
        """As the crow flies."""
        return distance(state, goal)

    def reason(self, start: State, goal: State) -> str | None:
        """Near each other, in one room, or in the wall."""
        if distance(start, goal) < self.near[self.protocol]:
            return "solved_at_start"
        if side(start) == side(goal):
            return "one_room"
        return "in_wall" if in_wall(start) or in_wall(goal) else None


def side(state: State) -> bool:
    """Whether in the left room; the doorway is halved."""
    return bool(state[0] < WALL_X)


def at_door(state: State) -> bool:
    """Whether at a height that passes."""
    return bool(DOOR_SPAN[0] <= state[1] <= DOOR_SPAN[1])


def in_wall(state: State) -> bool:
    """Whether where the wall would push the agent out."""
    return bool(WALL_ZONE[0] < state[0] < WALL_ZONE[1]) and not at_door(state)

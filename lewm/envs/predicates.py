"""When a rollout counts as solved, by world and protocol, and which pairs ask for nothing.

A judge is shown every state of a rollout, the first one included, and says when it is solved; what the world itself
says of its end plays no part. Lengths are in the world's own units.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float

from lewm.envs.two_room import DONE_DISTANCE, DOOR_SPAN, WALL_X, WALL_ZONE
from lewm.errors import UserError

State = Float[np.ndarray, " x"]


class Condition(Protocol):
    """What must be so; it sees every state once, in order, and may remember them."""

    def __call__(self, state: State) -> bool: ...


class Judge:
    """Solved once a condition has held for `steps` states in a row; then it stays solved. 1 is the first hit."""

    def __init__(self, condition: Condition, *, steps: int = 1) -> None:
        self.condition, self.steps, self.held, self.solved = condition, steps, 0, False

    def see(self, state: State) -> bool:
        """Show the next state; whether the rollout is solved by now."""
        self.held = self.held + 1 if self.condition(state) else 0
        self.solved = self.solved or self.held >= self.steps
        return self.solved


class Near:
    """Within `near` of the goal."""

    def __init__(self, goal: State, near: float) -> None:
        self.goal, self.near = goal, near

    def __call__(self, state: State) -> bool:
        """Now."""
        return distance(state, self.goal) < self.near


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


class TwoRoomRules:
    """Two-Room under one protocol; states are (x, y)."""

    column = "state"  # of a data set
    size = 2
    unit = "units of a 224 x 224 picture"
    near = {"strict": 8.0, "moderate": 16.0, "paper": DONE_DISTANCE}

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def judge(self, goal: State) -> Judge:
        """A judge of one rollout."""
        condition = NearByTheDoor if self.protocol == "strict" else Near
        return Judge(condition(goal, self.near[self.protocol]))

    def distance(self, state: State, goal: State) -> float:
        """How far it is to the goal, as the crow flies."""
        return distance(state, goal)

    def reason(self, start: State, goal: State) -> str | None:
        """Why a pair asks for nothing, or cannot be judged; None where it can."""
        if distance(start, goal) < self.near[self.protocol]:
            return "solved_at_start"
        if side(start) == side(goal):
            return "one_room"
        return "in_wall" if in_wall(start) or in_wall(goal) else None


RULES = {"two_room": TwoRoomRules}


def rules_of(world: str, protocol: str) -> TwoRoomRules:
    """What counts in a world under a protocol; UserError for a world without rules."""
    if world not in RULES:
        raise UserError(f"success in world {world!r} is not defined; it is for: {', '.join(RULES)}")
    return RULES[world](protocol)


def distance(state: State, goal: State) -> float:
    """Euclidean."""
    return float(np.linalg.norm(np.asarray(state, np.float64) - np.asarray(goal, np.float64)))


def side(state: State) -> bool:
    """Whether in the left room; the doorway is halved."""
    return bool(state[0] < WALL_X)


def at_door(state: State) -> bool:
    """Whether at a height that passes."""
    return bool(DOOR_SPAN[0] <= state[1] <= DOOR_SPAN[1])


def in_wall(state: State) -> bool:
    """Whether where the wall would push the agent out."""
    return bool(WALL_ZONE[0] < state[0] < WALL_ZONE[1]) and not at_door(state)

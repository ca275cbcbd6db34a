"""What counts as solved in Push-T. States are the seven numbers of `PushT`, in the units of its window."""

from __future__ import annotations

import numpy as np

from lewm.envs.predicates import Condition, Rules, State, angle_between, distance
from lewm.envs.push_t import ANGLE, BLOCK, POSITIONS, VELOCITY, WINDOW, near


class BlockThere:
    """The block alone: its position within 10 of the goal's, its angle within 10 degrees."""

    near, turn = 10.0, np.pi / 18

    def __init__(self, goal: State) -> None:
        self.goal = goal

    def __call__(self, state: State) -> bool:
        """Now."""
        turned = angle_between(state[ANGLE], self.goal[ANGLE])
        return distance(state[BLOCK], self.goal[BLOCK]) < self.near and turned < self.turn


class BothThere:
    """Agent and block, as the world itself ends: four numbers together within 20, the angle within 20 degrees."""

    def __init__(self, goal: State) -> None:
        self.goal = goal

    def __call__(self, state: State) -> bool:
        """Now."""
        return near(state, self.goal)


class PushTRules(Rules):
    """Push-T under one protocol."""

    columns = {"state": 7}
    unit = "units of a 512 x 512 window, of the block"
    velocity = VELOCITY
    angles = (ANGLE,)

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.hold = 3 if protocol == "strict" else 1

    def condition(self, goal: State) -> Condition:
        """The block there under `strict`, where the agent is does not matter; else both."""
        return BlockThere(goal) if self.protocol == "strict" else BothThere(goal)

    def distance(self, state: State, goal: State) -> float:
        """Of the block's positions; its angle is left out."""
        return distance(state[BLOCK], goal[BLOCK])

    def reason(self, start: State, goal: State) -> str | None:
        """Solved at the start; or out of view, where no picture can tell what is asked for."""
        solved = super().reason(start, goal)
        unseen = self.protocol != "paper" and not (in_view(start) and in_view(goal))
        return solved or ("out_of_view" if unseen else None)


def in_view(state: State) -> bool:
    """Whether the positions of agent and block lie in the window."""
    return bool(((state[POSITIONS] >= 0) & (state[POSITIONS] <= WINDOW)).all())

"""When a rollout counts as solved, by world and protocol, and which pairs ask for nothing.

A judge is shown every state of a rollout, the first one included, and says when it is solved; what the world itself
says of its end plays no part. Lengths are in the world's own units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from jaxtyping import Float

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
    """Within `near` of the goal, Euclidean."""

    def __init__(self, goal: State, near: float) -> None:
        self.goal, self.near = goal, near

    def __call__(self, state: State) -> bool:
        """Now."""
        return distance(state, self.goal) < self.near


class Rules(ABC):
    """What counts in one world under one protocol.

    A state is the numbers of the data set's `columns` in their order.
    """

    columns: dict[str, int | None]  # of a data set: how many numbers a row of each has; None for as many as the world
    unit: str  # of `distance`
    hold = 1  # states in a row
    velocity = slice(0, 0)  # the numbers of a state that are 0 at rest
    angles: tuple[int, ...] = ()  # numbers of a state in which a full turn is no difference

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    @abstractmethod
    def condition(self, goal: State) -> Condition:
        """What must hold of the states of one rollout."""

    @abstractmethod
    def distance(self, state: State, goal: State) -> float:
        """How far it is to the goal; for pictures and tables, success is the condition's."""

    def start(self, state: State) -> State:
        """Where a rollout begins for a recorded state: at rest, but under `paper` with what velocity was recorded."""
        start = np.array(state)
        if self.protocol != "paper":
            start[self.velocity] = 0.0
        return start

    def judge(self, goal: State) -> Judge:
        """A judge of one rollout."""
        return Judge(self.condition(goal), steps=self.hold)

    def reason(self, start: State, goal: State) -> str | None:
        """Why a pair asks for nothing, or cannot be judged; None where it can."""
        return "solved_at_start" if self.condition(goal)(start) else None


def distance(state: State, goal: State) -> float:
    """Euclidean."""
    return float(np.linalg.norm(np.asarray(state, np.float64) - np.asarray(goal, np.float64)))


def angle_between(a: float, b: float) -> float:
    """The shortest way round, in radians: 0 to pi."""
    return float(abs((a - b + np.pi) % (2 * np.pi) - np.pi))

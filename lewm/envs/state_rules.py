"""What counts as solved in a world that has no rules of its own: near the goal, over the numbers of its state."""

from __future__ import annotations

import numpy as np

from lewm.envs.predicates import Condition, Near, Rules, State, distance
from lewm.errors import UserError


class StateRules(Rules):
    """Within `near` of the goal, Euclidean over all numbers of the state, whatever their units; at the first hit.

    The protocol says how pairs are drawn; what is solved is the same under each. Velocities are numbers of a state like
    any others, so a rollout starts with those that were recorded.
    """

    columns = {"state": None}
    unit = "units of the state, all numbers together"

    def __init__(self, protocol: str, near: float) -> None:
        super().__init__(protocol)
        if not (np.isfinite(near) and near > 0):
            raise UserError(f"--near is {near}; it must be a distance above 0")
        self.near = near

    def condition(self, goal: State) -> Condition:
        """Near it."""
        return Near(goal, self.near)

    def distance(self, state: State, goal: State) -> float:
        """Euclidean."""
        return distance(state, goal)

"""What counts as solved in Reacher. States are shoulder and wrist angle in radians, then their velocities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lewm.envs.predicates import Condition, Rules, State, angle_between, distance

UPPER, FORE = 0.12, 0.12  # metres from shoulder to wrist, and from wrist to the finger's centre
POSTURE, VELOCITY = slice(0, 2), slice(2, 4)


def fingertip(state: Float[np.ndarray, " x"]) -> Float[np.ndarray, " 2"]:
    """Where the finger is, in metres from the shoulder: `u (cos s, sin s) + f (cos(s + w), sin(s + w))`."""
    shoulder, wrist = state[POSTURE]
    fore = shoulder + wrist
    return UPPER * np.array((np.cos(shoulder), np.sin(shoulder))) + FORE * np.array((np.cos(fore), np.sin(fore)))


class FingertipThere:
    """The fingertip at most 1 cm from where the goal's posture puts it, with whatever posture."""

    near = 0.01

    def __init__(self, goal: State) -> None:
        self.goal = fingertip(goal)

    def __call__(self, state: State) -> bool:
        """Now."""
        return distance(fingertip(state), self.goal) <= self.near


class PostureThere:
    """Both joints less than 0.05 rad from the goal's; where `periodic`, the shoulder's by the shortest way round.

    The wrist is limited to less than a full turn, so no other angle of it is the same posture.
    """

    near = 0.05

    def __init__(self, goal: State, *, periodic: bool) -> None:
        self.goal, self.periodic = np.array(goal[POSTURE]), periodic

    def __call__(self, state: State) -> bool:
        """Now."""
        shoulder, wrist = np.abs(state[POSTURE] - self.goal)
        if self.periodic:
            shoulder = angle_between(state[0], self.goal[0])
        return bool(max(shoulder, wrist) < self.near)


class ReacherRules(Rules):
    """Reacher under one protocol; `paper` is as swm/ReacherDMControl-v0 ends, which counts turns of the shoulder."""

    columns = {"qpos": 2, "qvel": 2}
    unit = "metres, of the fingertip"
    velocity = VELOCITY

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.hold = 2 if protocol == "strict" else 1

    def condition(self, goal: State) -> Condition:
        """The fingertip under `strict`, else the posture."""
        return FingertipThere(goal) if self.protocol == "strict" else PostureThere(goal, periodic=self.periodic)

    @property
    def periodic(self) -> bool:
        """Whether a full turn of the shoulder changes nothing."""
        return self.protocol != "paper"

    def distance(self, state: State, goal: State) -> float:
        """From fingertip to fingertip."""
        return distance(fingertip(state), fingertip(goal))

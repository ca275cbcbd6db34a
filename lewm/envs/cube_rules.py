"""What counts as solved in Cube. States are the numbers of `Cube`: positions, the cube's last, then velocities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lewm.envs.predicates import Condition, Rules, State, distance

POSITIONS, VELOCITIES = 21, 20
CENTRE, QUATERNION, VELOCITY = slice(14, 17), slice(17, 21), slice(POSITIONS, None)
NEAR = 0.04  # metres: the package's own
Quaternion = Float[np.ndarray, " 4"]  # w, x, y, z


def cube_angle(a: Quaternion, b: Quaternion) -> float:
    """Least angle in radians by which a cube must be turned from one orientation to look as in another: 0 to 1.1.

    The turn between them in the cube's own axes is `r = conj(a) b`; what is left of it after the best of the cube's 24
    rotations g is `2 arccos(max |<r, g>|)`. With |w|, |x|, |y|, |z| of r in falling order p >= q >= s >= t, the group's
    best is one of: none (p), a quarter turn about a face's axis ((p + q) / sqrt 2), a third of a turn about a diagonal
    ((p + q + s + t) / 2). The half turns are among the first two: their quaternions are permutations of these.
    """
    p, q, s, t = np.sort(np.abs(_between(np.asarray(a, np.float64), np.asarray(b, np.float64))))[::-1]
    nearest = max(p, (p + q) / np.sqrt(2), (p + q + s + t) / 2)
    return float(2 * np.arccos(min(1.0, nearest)))


def _between(a: Quaternion, b: Quaternion) -> Quaternion:
    """`conj(a) b`, of length 1."""
    w, v = a[0] * b[0] + a[1:] @ b[1:], a[0] * b[1:] - b[0] * a[1:] - np.cross(a[1:], b[1:])
    turn = np.array((w, *v))
    return turn / np.linalg.norm(turn)


class CubeThere:
    """The cube's centre at most `near` metres from the goal's, and where asked for its orientation at most `turn`."""

    def __init__(self, goal: State, *, near: float, turn: float | None = None) -> None:
        self.goal, self.near, self.turn = np.array(goal), near, turn

    def __call__(self, state: State) -> bool:
        """Now."""
        if distance(state[CENTRE], self.goal[CENTRE]) > self.near:
            return False
        return self.turn is None or cube_angle(self.goal[QUATERNION], state[QUATERNION]) <= self.turn


class CubeRules(Rules):
    """Cube under one protocol; where the arm is does not matter under any."""

    columns = {"qpos": POSITIONS, "qvel": VELOCITIES}
    unit = "metres, of the cube's centre"
    velocity = VELOCITY
    strict_near, strict_turn = 0.03, np.radians(15)

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.hold = 3 if protocol == "strict" else 1

    def condition(self, goal: State) -> Condition:
        """Centre and orientation under `strict`, else the centre alone."""
        if self.protocol == "strict":
            return CubeThere(goal, near=self.strict_near, turn=self.strict_turn)
        return CubeThere(goal, near=NEAR)

    def distance(self, state: State, goal: State) -> float:
        """From centre to centre."""
        return distance(state[CENTRE], goal[CENTRE])

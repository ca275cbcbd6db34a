"""Reacher: an arm of two joints in the plane, driven by torques; the model and look of dm_control's, target not drawn.

Positions are (x, y) in metres in the arm's plane, angles in radians and not wrapped, velocities in radians a second.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lewm.envs.mujoco_gl import Scene, load
from lewm.envs.mujoco_world import NATIVE, MujocoWorld
from lewm.envs.packages import needed
from lewm.envs.reacher_rules import fingertip

CONTROL_STEPS = 2  # of 0.02 s, for which an action is held
TARGET_RADIUS, FINGER_RADIUS = 0.015, 0.01
TARGET_AWAY = (0.05, 0.20)  # from the shoulder
CAMERA = 0  # seen from above


class Reacher(MujocoWorld):
    """A shoulder that turns all the way round and a wrist that is limited to 160 degrees either way.

    A state is four numbers: shoulder and wrist angle, their velocities. It determines what follows. An action is the
    two torques in [-1, 1], held for 0.04 s. The reward is the number of control steps, 0 to 2, that end with the
    finger in the target.
    """

    name, actions = "Reacher", 2

    def __init__(self, **settings: Any) -> None:
        self._target = np.array((0.0, TARGET_AWAY[1]))
        super().__init__(**settings)

    @property
    def info(self) -> dict[str, Any]:
        """Angles and velocities, finger and target, float64 (2,) each."""
        qpos, qvel = self._data.qpos.copy(), self._data.qvel.copy()
        return {"qpos": qpos, "qvel": qvel, "finger_pos": fingertip(qpos), "target_pos": self._target.copy()}

    @staticmethod
    def _make_scene() -> Scene:
        return scene()

    def _sample_start(self) -> np.ndarray:
        """Angles uniform over what they can be; a new target with it."""
        low, high = self._model.jnt_range[1]  # of the wrist
        start = np.array((self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(low, high), 0.0, 0.0))
        angle, away = self.np_random.uniform(0, 2 * np.pi), self.np_random.uniform(*TARGET_AWAY)
        self._target = away * np.array((np.sin(angle), np.cos(angle)))
        return start

    def _put(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:], self._data.qvel[:] = qpos, qvel
        self._mujoco.mj_forward(self._model, self._data)

    def _move(self, action: np.ndarray) -> float:
        """As dm_control steps: the second half of a step, then the first half of the next, so all is up to date."""
        self._data.ctrl[:] = (action + 1) - 1  # the rounding of the package's own scaling to [-1, 1]
        inside = 0
        for _ in range(CONTROL_STEPS):
            self._mujoco.mj_step2(self._model, self._data)
            self._mujoco.mj_step1(self._model, self._data)
            away = np.linalg.norm(fingertip(self._data.qpos) - self._target)
            inside += away <= TARGET_RADIUS + FINGER_RADIUS
        return float(inside)


@cache
def scene() -> Scene:
    """The arm, compiled; nothing of dm_control but its model is used."""
    package = needed("dm_control", world="reacher")
    mujoco = load("reacher")
    path = Path(package.__file__ or "").parent / "suite" / "reacher.xml"
    model = mujoco.MjModel.from_xml_path(str(path))
    model.mat("target").rgba[3] = 0.0
    return Scene(mujoco, model, camera=CAMERA, side=NATIVE)

"""Cube: an arm with a gripper picks up a cube and puts it down; ogbench's single cube with the look of swm/OGBCube-v0.

Positions are in metres, x towards the camera and z up, angles in radians. A state is 21 positions (six of the arm,
eight of the gripper, the cube's centre and its quaternion w, x, y, z), then 20 velocities.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.envs.cube_rules import CENTRE, NEAR, QUATERNION
from lewm.envs.mujoco_gl import Scene, load
from lewm.envs.mujoco_world import NATIVE, MujocoWorld
from lewm.envs.packages import needed

CAMERA = "front_pixels"
EFFECTOR_START = (0.425, 0.0, 0.275)  # the gripper at the start of an episode
CUBES = np.array(((0.30, -0.30), (0.55, 0.30)))  # where a cube may start and a target may lie
CUBE_HEIGHT = 0.02  # of the centre of a cube that lies on the floor
PURPLE = ("ur5e/robotiq/black", "ur5e/robotiq/pad_gray")  # materials of the gripper
RECORDED = (
    "qpos",
    "qvel",
    "proprio/effector_pos",
    "proprio/effector_yaw",
    "proprio/gripper_opening",
    "privileged/block_0_pos",
    "privileged/block_0_quat",
    "privileged/block_0_yaw",
)


class Cube(MujocoWorld):
    """An action moves the gripper (x, y, z: 1.0 = 5 cm; yaw: 1.0 = 0.3 rad) and opens or closes it, from where it is.

    A step is 0.05 s, 25 steps of the simulation. Where the arm is seen to be, by the camera and by the controller, lags
    one of these behind: it is worked out at the start of each. So a restored state is given the arm as it was 2 ms ago,
    which its velocity tells. What a state does not hold is the solver's first guess of the contact forces.

    The reward is 1 where the cube is within 4 cm of its target, which is not drawn.
    """

    name, actions = "Cube", 5

    def __init__(self, **settings: Any) -> None:
        self._target = (np.array((*CUBES.mean(axis=0), CUBE_HEIGHT)), 0.0)
        super().__init__(**settings)

    @property
    def info(self) -> dict[str, Any]:
        """What the package tells of arm, gripper and cube, float64 vectors, under its own names."""
        everything = self.everything()
        return {name: everything[name] for name in RECORDED}

    def everything(self) -> dict[str, Any]:
        """All that the package tells, the target too: for its own policies."""
        return self._package().compute_ob_info() | {"privileged/target_block": 0}

    def set_target(self, rng: np.random.Generator) -> None:
        """Draw another target on the floor."""
        self._target = (np.array((*rng.uniform(*CUBES), CUBE_HEIGHT)), rng.uniform(0, 2 * np.pi))
        self._put_target()

    @staticmethod
    def _make_scene() -> Scene:
        return scene()[0]

    def _package(self) -> Any:
        """The package's environment, which all worlds share, at work on this world's data."""
        package = scene()[1]
        package._data = self._data
        return package

    def _sample_start(self) -> np.ndarray:
        """The gripper above the floor's middle, turned at random; a cube on the floor; a new target with it."""
        rng, model = self.np_random, self._model
        qpos = model.qpos0.copy()
        qpos[self._package()._arm_joint_ids] = self._arm_posture(rng.uniform(-np.pi, np.pi))
        qpos[CENTRE] = (*rng.uniform(*CUBES), CUBE_HEIGHT)
        qpos[QUATERNION] = upright(rng.uniform(0, 2 * np.pi))
        self.set_target(rng)
        return np.concatenate([qpos, np.zeros(model.nv)])

    def _arm_posture(self, yaw: float) -> Float[np.ndarray, " 6"]:
        """Joint angles with the gripper at its start, pointing down."""
        package, lie = self._package(), needed("ogbench.manipspace.lie", world="cube")
        down = lie.SO3.from_z_radians(yaw) @ package._effector_down_rotation
        flange = lie.SE3.from_rotation_and_translation(down, np.array(EFFECTOR_START)) @ package._T_pa
        return package._ik.solve(flange.translation(), flange.rotation().wxyz, package._home_qpos)

    def _put(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        mujoco, model, data = self._mujoco, self._model, self._data
        mujoco.mj_resetData(model, data)
        self._put_target()
        before = qpos.copy()  # a step of the simulation ago, as positions are moved by the velocity after it
        mujoco.mj_integratePos(model, before, qvel, -model.opt.timestep)
        data.qpos[:], data.qvel[:] = before, qvel
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        data.qpos[:] = qpos

    def _put_target(self) -> None:
        self._data.mocap_pos[0], self._data.mocap_quat[0] = self._target[0], upright(self._target[1])

    def _move(self, action: np.ndarray) -> float:
        package = self._package()
        package.set_control(action.astype(np.float32))  # whose rounding is the package's own
        self._mujoco.mj_step(self._model, self._data, nstep=package._n_steps)
        self._mujoco.mj_rnePostConstraint(self._model, self._data)  # forces on the gripper's pads
        return float(np.linalg.norm(self._data.qpos[CENTRE] - self._target[0]) <= NEAR)


def upright(yaw: float) -> Float[np.ndarray, " 4"]:
    """A quaternion (w, x, y, z) of a turn about the vertical."""
    return np.array((np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)))


@cache
def scene() -> tuple[Scene, Any]:
    """The scene, compiled, and the package's environment: its controller and what it tells."""
    needed("dm_control", world="cube")
    mujoco = load("cube")
    package = needed("ogbench.manipspace.envs.cube_env", world="cube").CubeEnv(
        "single", mode="data_collection", visualize_info=False, terminate_at_goal=False, width=NATIVE, height=NATIVE
    )
    package.modify_mjcf_model = lambda model: _painted(model, package._colors["purple"])
    package.reset(seed=0)
    package.pre_step()
    model = package.model
    model.geom("target_object_0").rgba[3] = 0.0
    return Scene(mujoco, model, camera=CAMERA, side=NATIVE), package


def _painted(model: Any, colour: np.ndarray) -> Any:
    for material in PURPLE:
        model.find("material", material).rgba[:3] = colour[:3]
    return model

"""What the worlds that MuJoCo simulates have in common: episodes, pictures, and a state that can be set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lewm.envs.mujoco_gl import Scene
from lewm.envs.picture import check_settings, reduced
from lewm.errors import UserError

NATIVE = 224  # side of the picture that smaller ones are made of


class MujocoWorld(gymnasium.Env[np.ndarray, np.ndarray], ABC):
    """A world over a shared scene; the observation is the picture.

    The state is the joints' positions, then their velocities, float64. Nothing but `max_steps` ends an episode. To
    move the world without drawing it, call `advance` instead of `step`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    name: str  # for messages
    actions: int  # how many numbers

    def __init__(
        self, *, image_size: int = NATIVE, max_steps: int = 100, render_mode: str | None = "rgb_array"
    ) -> None:
        check_settings(image_size, max_steps, render_mode, native=NATIVE)
        self.image_size, self.max_steps, self.render_mode = image_size, max_steps, render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (self.actions,), np.float32)
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._scene = self._make_scene()
        self._data = self._scene.join(self)
        self._mujoco, self._model = self._scene.mujoco, self._scene.model
        self._steps, self._reward = 0, 0.0
        self.set_state(np.concatenate([self._data.qpos, self._data.qvel]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; `options` may fix `state`, exactly."""
        super().reset(seed=seed)
        options = dict(options or {})
        start = self._sample_start()
        self.set_state(options.pop("state", start))
        if options:
            raise UserError(f"unknown reset options {sorted(options)}; {self.name} reads state")
        self._steps = 0
        return self.render(), self.info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move, and draw."""
        self.advance(action)
        return self.render(), self._reward, False, self._steps >= self.max_steps, self.info

    def advance(self, action: np.ndarray) -> None:
        """Move as `step` does, without a picture."""
        action = np.asarray(action, np.float64)
        if action.shape != (self.actions,) or not np.isfinite(action).all():
            raise UserError(f"an action of {self.name} is {self.actions} finite numbers, not {action!r}")
        self._reward = self._move(np.clip(action, -1, 1))
        self._steps += 1

    def render(self) -> np.ndarray:
        """The picture: (image_size, image_size, 3) uint8; drawn at 224, and from there averaged."""
        return reduced(self._scene.draw(self._data), self.image_size)

    def close(self) -> None:
        """Give back what was held for drawing, where no other world of this kind is open."""
        self._scene.leave(self)

    @property
    def state(self) -> np.ndarray:
        """Positions and velocities, float64."""
        return np.concatenate([self._data.qpos, self._data.qvel])

    def set_state(self, state: Sequence[float] | np.ndarray) -> None:
        """Put the world into a state, without memory of what was before."""
        checked = np.array(state, np.float64)
        num = self._model.nq, self._model.nv
        if checked.shape != (sum(num),) or not np.isfinite(checked).all():
            what = f"a state of {self.name} is {num[0]} positions and {num[1]} velocities, all finite"
            raise UserError(f"{what}, not {state!r}")
        self._put(checked[: num[0]], checked[num[0] :])

    @property
    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What is recorded beside the picture."""

    @staticmethod
    @abstractmethod
    def _make_scene() -> Scene:
        """The one of this process."""

    @abstractmethod
    def _sample_start(self) -> np.ndarray:
        """A random state at rest, from `np_random`."""

    @abstractmethod
    def _put(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Set the data."""

    @abstractmethod
    def _move(self, action: np.ndarray) -> float:
        """One step of the data under an action within bounds; the reward."""

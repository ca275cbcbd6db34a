"""Any Gymnasium environment with a picture and bounded actions as a world, and how it is put into a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from lewm.envs.mujoco_gl import chosen_at_import
from lewm.envs.packages import quiet_pygame
from lewm.envs.picture import reduced
from lewm.errors import UserError

SMALLEST = 8  # side of a picture
LONGEST = 1000  # steps of an episode, where the environment has no limit of its own
TAKEN = {
    "state",
    "action",
    "reward",
    "terminated",
    "truncated",
    "step_idx",
    "id",
    "pixels",
}  # columns that others write
MISSING = (AttributeError, TypeError, ValueError, NotImplementedError)
WAYS = "methods get_state() and set_state(state), MuJoCo's set_state(qpos, qvel), or an array `state` that can be set"


class Access(Protocol):
    """One way to read and set an environment's state; one of `MISSING` where it has none."""

    def get(self) -> np.ndarray: ...

    def set(self, state: np.ndarray) -> None: ...


class ByMethods:
    """The environment's own `get_state()` and `set_state(state)`."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def get(self) -> np.ndarray:
        return np.array(self.env.get_state(), np.float64).ravel()

    def set(self, state: np.ndarray) -> None:
        like = np.asarray(self.env.get_state())
        self.env.set_state(state.reshape(like.shape).astype(like.dtype))


class ByMuJoCo:
    """MuJoCo's positions and velocities, one after the other."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def get(self) -> np.ndarray:
        return np.concatenate([self.env.data.qpos, self.env.data.qvel]).astype(np.float64)

    def set(self, state: np.ndarray) -> None:
        num = len(self.env.data.qpos)
        self.env.set_state(state[:num].copy(), state[num:].copy())


class ByAttribute:
    """An array `state`, as the classic control problems have."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def get(self) -> np.ndarray:
        return np.array(self.env.state, np.float64).ravel()

    def set(self, state: np.ndarray) -> None:
        like = np.asarray(self.env.state)
        self.env.state = state.reshape(like.shape).astype(like.dtype)


class Adapter(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment by its Gymnasium id, whose observation is its rendered picture.

    The picture is brought to a square by averaging areas; one that is not square is squeezed. Only the environment
    itself terminates an episode; where it has no time limit, an episode is truncated after 1000 steps. Columns:
    `state`, where there is a way to set it, and the numbers of the environment's own info that are there from the
    reset on, as float64, NaN where one is missing later.

    A state is what the environment lets itself be put into; what it keeps beside that (a contact, the torque that
    Pendulum draws) is as after a reset.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, name: str, *, image_size: int = 64) -> None:
        if image_size < SMALLEST:
            raise UserError(f"image_size is {SMALLEST} or more, not {image_size}; no larger than the environment's own")
        self.name, self.image_size, self.render_mode = name, image_size, "rgb_array"
        quiet_pygame()
        self._env = _made(name)
        try:
            self._prepare()
        except BaseException:
            self._env.close()
            raise

    def _prepare(self) -> None:
        """Bounds, columns and the way to set the state; UserError where it lacks what a world needs."""
        name, image_size = self.name, self.image_size
        self._low, self._high, self._dtype = _bounds(name, self._env.action_space)
        self.action_space = spaces.Box(self._low.astype(np.float32), self._high.astype(np.float32), dtype=np.float32)
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._steps = 0
        _, info = self._env.reset(seed=0)
        self._info_shapes = {name: np.shape(value) for name, value in info.items() if _is_column(name, value)}
        self._access = _access_to(self._env.unwrapped)
        self.render()  # an environment without a picture says so now

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; `options` may fix `state`, other options go to the environment."""
        super().reset(seed=seed)
        options = dict(options or {})
        state = options.pop("state", None)
        _, info = self._env.reset(seed=seed, options=options or None)
        if state is not None:
            self.set_state(state)
        self._steps = 0
        return self.render(), self._columns(info)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step of the environment, the action moved into its bounds."""
        action = np.asarray(action)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            raise UserError(f"an action of {self.name} is {len(self._low)} finite numbers, not {action!r}")
        bounded = np.clip(action.astype(self._dtype), self._low, self._high)
        _, reward, terminated, truncated, info = self._env.step(bounded)
        self._steps += 1
        unlimited = self._env.spec is None or self._env.spec.max_episode_steps is None
        over = bool(truncated) or (unlimited and self._steps >= LONGEST)
        return self.render(), float(reward), bool(terminated), over, self._columns(info)

    def render(self) -> np.ndarray:
        """The picture: (image_size, image_size, 3) uint8."""
        picture = _picture(self.name, self._env.render)
        if min(picture.shape[:2]) < self.image_size:
            h, w = picture.shape[:2]
            raise UserError(f"pictures of {self.name} are {h} x {w}; --image_size {self.image_size} is larger")
        return reduced(picture, self.image_size)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    def state(self) -> np.ndarray:
        """Every number of the state, float64; UserError where it cannot be set."""
        return self._need_access().get()

    def set_state(self, state: Any) -> None:
        """Put the environment into a state; UserError for one of another size."""
        access = self._need_access()
        checked, size = np.array(state, np.float64), len(access.get())
        if checked.shape != (size,) or not np.isfinite(checked).all():
            raise UserError(f"a state of {self.name} is {size} finite numbers, not {checked.shape} {state!r}")
        access.set(checked)

    def _need_access(self) -> Access:
        if self._access is None:
            raise UserError(f"{self.name} cannot be put into a state, which planning needs: it would take {WAYS}")
        return self._access

    def _columns(self, info: dict[str, Any]) -> dict[str, np.ndarray]:
        own = {} if self._access is None else {"state": self._access.get()}
        return own | {name: _numbers(info.get(name), shape) for name, shape in self._info_shapes.items()}


def _made(name: str) -> gymnasium.Env[Any, Any]:
    try:
        with chosen_at_import():
            return gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
    except Exception as error:  # of names that make no sense, of imports, of the environment's own
        what = _one_line(error)
        raise UserError(
            f"no Gymnasium environment {name!r} with pictures: {what}; one of another package is named as "
            "PACKAGE:NAMESPACE/NAME-v0"
        ) from error


def _bounds(name: str, space: Any) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Least and largest action, and the environment's dtype."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UserError(f"actions of {name} are {space}; only a vector of numbers within finite bounds is planned for")
    if not space.is_bounded():
        raise UserError(f"actions of {name} have no finite bounds: {space}; wrap it in one that has")
    assert space.dtype is not None
    return space.low, space.high, space.dtype


def _access_to(env: Any) -> Access | None:
    """The first way in which the environment's present state can be read and set back to what it is."""
    for way in (ByMethods, ByMuJoCo, ByAttribute):
        access = way(env)
        try:
            before = access.get()
            access.set(before)
            same = before.ndim == 1 and np.isfinite(before).all() and np.array_equal(access.get(), before)
        except MISSING:
            continue
        if same:
            return access
    return None


def _picture(name: str, render: Callable[[], Any]) -> np.ndarray:
    try:
        picture = render()
    except Exception as error:  # a renderer without a display or a driver fails in ways of its own
        raise UserError(f"{name} cannot be drawn: {_one_line(error)}") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        raise UserError(f"{name} has no picture: render() gives {type(picture).__name__}, not (h, w, 3) uint8")
    return picture


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _is_column(name: str, value: Any) -> bool:
    return name not in TAKEN and isinstance(value, int | float | np.ndarray | np.generic) and _kind(value) in "biuf"


def _kind(value: Any) -> str:
    return np.asarray(value).dtype.kind


def _numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The value as float64; NaN where it is missing or has another shape."""
    fits = value is not None and np.shape(value) == shape and _kind(value) in "biuf"
    return np.array(value, np.float64) if fits else np.full(shape, np.nan)

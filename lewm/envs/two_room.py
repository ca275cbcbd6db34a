"""The built-in world: a red dot in two rooms joined by one door, with the equations and look of swm/TwoRoom-v1.

Positions are (x, y) in native pixels of a 224 x 224 picture, x to the right and y down.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lewm.envs.picture import check_settings
from lewm.errors import UserError

NATIVE = 224  # side of the native picture
SPEED = 5.0  # units a step at action 1.0
RADIUS = 7.0  # of the agent: its reach in collisions and the standard deviation of its dot
FLOOR = (14.0, 209.0)  # where an episode may start and a target may lie, on both axes
REACH = (21.0, 203.0)  # where one step can end, on both axes: a radius from the border
WALL_X, WALL_HALF = 112.0, 5.0  # the wall's middle and half its thickness
WALL_ZONE = (WALL_X - WALL_HALF - RADIUS, WALL_X + WALL_HALF + RADIUS)  # where the agent would touch the wall
PUSH = 0.5  # how far in front of the zone the wall leaves the agent
DOOR_Y, DOOR_HALF = 49.0, 14.0
DOOR_SPAN = (DOOR_Y - DOOR_HALF - 1.75, DOOR_Y + DOOR_HALF + 1.75)  # heights that pass: the opening is forgiving
DONE_DISTANCE = 16.0
COLOURS = {"agent": (255, 0, 0), "wall": (0, 0, 0), "door": (255, 255, 255), "background": (255, 255, 255)}
# The dot has no edge: colours are cut, not rounded, to integers, so that white turns to 254 wherever the dot's
# alpha exceeds 2**-25, half the last bit of 1.0 in float32. That is at 7 * sqrt(2 * 25 * ln 2) = 41.2 units.
DOT_REACH = 42

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Physics:
    """What may be changed about the laws of motion; the defaults are the built-in ones."""

    speed: float = 1.0  # factor on the displacement
    momentum: float = 0.0  # share of the last displacement that is kept
    walls: bool = True  # whether the inner wall stops the agent


BUILT_IN = Physics()


def next_state(
    state: np.ndarray, action: np.ndarray, last: np.ndarray | None = None, physics: Physics = BUILT_IN
) -> np.ndarray:
    """Where one step leads: `s' = clip(s + 5 clip(a, -1, 1), 21, 203)`, then out of the wall; all in float32.

    Of other physics: `s' = clip(s + 5 speed clip(a, -1, 1) + momentum last, 21, 203)`, where `last` is the displacement
    that the step before led to, and with `walls` False the inner wall is passed.
    """
    moved = state + np.clip(action, -1, 1).astype(np.float32) * np.float32(SPEED * physics.speed)
    if physics.momentum and last is not None:
        moved += np.float32(physics.momentum) * last
    moved = np.clip(moved, *REACH)
    if physics.walls and not DOOR_SPAN[0] <= moved[1] <= DOOR_SPAN[1]:
        if state[0] < WALL_X and moved[0] > WALL_ZONE[0]:
            moved[0] = WALL_ZONE[0] - PUSH
        elif state[0] >= WALL_X and moved[0] < WALL_ZONE[1]:
            moved[0] = WALL_ZONE[1] + PUSH
    return moved


def _native_background(colours: dict[str, Rgb]) -> np.ndarray:
    """The picture without its dot: (3, 224, 224) float32."""
    y, x = np.mgrid[:NATIVE, :NATIVE]
    in_wall = abs(x - WALL_X) <= WALL_HALF
    in_door = in_wall & (abs(y - DOOR_Y) <= DOOR_HALF)
    line = np.isin(np.arange(NATIVE), [*range(10, 14), *range(210, 214)])  # of the border, edge to edge
    picture = np.empty((NATIVE, NATIVE, 3), np.float32)
    picture[:] = colours["background"]
    picture[in_wall] = colours["wall"]
    picture[in_door] = colours["door"]
    picture[line[:, None] | line] = colours["wall"]
    return picture.transpose(2, 0, 1).copy()


class _Picture:
    """Draws the world at `size` pixels: the 224-pixel picture, averaged over blocks, rows of a block first.

    Output pixel i averages the native pixels with their centres in its window, `round(224 i / size)` up to
    `round(224 (i + 1) / size)`. Only the blocks that the dot reaches are computed; the rest is kept.
    """

    def __init__(self, size: int, colours: dict[str, Rgb]) -> None:
        edges = np.floor(np.arange(size + 1) * NATIVE / size + 0.5).astype(int)
        pixels = np.arange(NATIVE)
        inside = (pixels >= edges[:-1, None]) & (pixels < edges[1:, None])
        self.size, self.edges = size, edges.tolist()
        self.weights = inside / inside.sum(1, keepdims=True, dtype=np.float32)  # (size, 224)
        self.grid = pixels.astype(np.float32)
        self.native = _native_background(colours)
        self.agent = np.array(colours["agent"], np.float32)[:, None, None]
        self.background = self._average(self.native, self.weights, self.weights)

    def draw(self, state: np.ndarray) -> np.ndarray:
        """The picture with the dot at `state`: (size, size, 3) uint8."""
        columns, xs, dot_x = self._axis(float(state[0]))
        rows, ys, dot_y = self._axis(float(state[1]))
        alpha = dot_y[:, None] * dot_x
        patch = self.native[:, ys, xs] * (1 - alpha)
        patch += self.agent * alpha
        np.floor(patch, out=patch)
        frame = self.background.copy()
        frame[rows, columns] = self._average(patch, self.weights[rows, ys], self.weights[columns, xs])
        return frame

    def _axis(self, centre: float) -> tuple[slice, slice, np.ndarray]:
        """Along one axis: the blocks that the dot reaches, their native pixels, and its profile with maximum 1."""
        first = max(bisect_right(self.edges, centre - DOT_REACH) - 1, 0)
        last = min(bisect_left(self.edges, centre + DOT_REACH + 1), self.size)
        span = slice(self.edges[first], self.edges[last])
        profile = self.grid[span] - np.float32(centre)
        profile = np.exp(profile * profile * np.float32(-0.5 / RADIUS**2))
        return slice(first, last), span, profile / profile.max()

    def _average(self, native: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Block means of (3, y, x), rounded along x, then along y: (rows, columns, 3) uint8."""
        if self.size < NATIVE:
            native = native @ columns.T
            native += 0.5
            np.floor(native, out=native)
            native = rows @ native
            native += 0.5
        return native.astype(np.uint8).transpose(1, 2, 0)


class TwoRoom(gymnasium.Env[np.ndarray, np.ndarray]):
    """Two rooms, one door; the observation is the picture, and the target is not drawn.

    The reward is 0; an episode terminates within 16 units of the target and is truncated after `max_steps`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        *,
        image_size: int = NATIVE,
        max_steps: int = 100,
        agent_colour: Rgb = COLOURS["agent"],
        wall_colour: Rgb = COLOURS["wall"],
        door_colour: Rgb = COLOURS["door"],
        background_colour: Rgb = COLOURS["background"],
        render_mode: str | None = "rgb_array",
    ) -> None:
        check_settings(image_size, max_steps, render_mode, native=NATIVE)
        self.image_size, self.max_steps, self.render_mode = image_size, max_steps, render_mode
        own = {"agent": agent_colour, "wall": wall_colour, "door": door_colour, "background": background_colour}
        self._own_colours = {name: _checked_rgb(name, rgb) for name, rgb in own.items()}
        self._paint(self._own_colours)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._state = np.array((60.0, 112.0), np.float32)
        self._goal_state = np.array((164.0, 112.0), np.float32)
        self._undo()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode, whatever was set undone; `options` may fix `state` and `goal_state`.

        A random start is uniform over the floor beside the wall, up to 7 units nearer the border than any step leads.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        start, goal = self._sample_start(), self.np_random.uniform(*FLOOR, 2)
        self._state = _checked_state(options.pop("state", start))
        self._goal_state = _checked_state(options.pop("goal_state", goal))
        if options:
            raise UserError(f"unknown reset options {sorted(options)}; TwoRoom reads state and goal_state")
        if self._colours != self._own_colours:
            self._paint(self._own_colours)
        self._undo()
        return self.render(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move by `5 clip(action, -1, 1)`, stopped by border and wall."""
        self.advance(action)
        info = self._info()
        return self.render(), 0.0, info["distance_to_target"] < DONE_DISTANCE, self._steps >= self.max_steps, info

    def advance(self, action: np.ndarray) -> None:
        """Move as `step` does, without a picture."""
        action = np.asarray(action)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise UserError(f"an action is two finite numbers (x, y), not {action!r}")
        before, self._state = self._state, next_state(self._state, action, self._last, self._physics)
        self._last = self._state - before
        self._steps += 1

    def render(self) -> np.ndarray:
        """The picture: (image_size, image_size, 3) uint8."""
        return self._picture.draw(self._state) if self._visible else self._picture.background.copy()

    @property
    def state(self) -> np.ndarray:
        """The agent's centre (x, y), float32."""
        return self._state.copy()

    @property
    def goal_state(self) -> np.ndarray:
        """The target's centre (x, y), float32; it may lie inside the wall."""
        return self._goal_state.copy()

    @property
    def colours(self) -> dict[str, Rgb]:
        """Each object's colour, by name."""
        return dict(self._colours)

    def set_state(self, state: Sequence[float] | np.ndarray) -> None:
        """Put the agent anywhere on the floor, inside the wall included."""
        self._state = _checked_state(state)

    def set_colour(self, name: str, rgb: Sequence[int] | np.ndarray) -> None:
        """Give an object (agent, wall, door, background) another colour until the next reset."""
        if name not in self._colours:
            raise UserError(f"no object {name!r} to colour; one of {', '.join(self._colours)}")
        self._paint({**self._colours, name: _checked_rgb(name, rgb)})

    def set_visible(self, name: str, visible: bool) -> None:
        """Draw the agent or not, until the next reset; it is there all the same."""
        if name != "agent":
            raise UserError(f"{name!r} cannot be hidden; agent can")
        self._visible = bool(visible)

    def set_physics(self, *, speed: float = 1.0, momentum: float = 0.0, walls: bool = True) -> None:
        """Change the laws of motion (see `Physics`) until the next reset; what is not named is as built in."""
        if not (np.isfinite(speed) and speed >= 0):
            raise UserError(f"speed is a factor on the displacement, 0 or more, not {speed!r}")
        if not 0 <= momentum < 1:
            raise UserError(
                f"momentum is the share of the last displacement that is kept, 0 to below 1, not {momentum!r}"
            )
        self._physics = Physics(speed, momentum, bool(walls))

    def legal_state(self, state: Sequence[float] | np.ndarray) -> bool:
        """Whether the agent could have walked there: clear of the border, and of the wall outside its door."""
        x, y = np.asarray(state, np.float32)
        inside = REACH[0] <= x <= REACH[1] and REACH[0] <= y <= REACH[1]
        in_wall = WALL_ZONE[0] < x < WALL_ZONE[1] and not DOOR_SPAN[0] <= y <= DOOR_SPAN[1]
        return bool(inside and not in_wall)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A random legal state, uniform, float32."""
        while True:
            state = rng.uniform(*REACH, 2).astype(np.float32)
            if self.legal_state(state):
                return state

    def _sample_start(self) -> np.ndarray:
        while True:
            start = self.np_random.uniform(*FLOOR, 2).astype(np.float32)
            if not WALL_ZONE[0] <= start[0] <= WALL_ZONE[1]:
                return start

    def _undo(self) -> None:
        self._steps, self._visible, self._physics = 0, True, BUILT_IN
        self._last = np.zeros(2, np.float32)  # the displacement of the last step

    def _paint(self, colours: dict[str, Rgb]) -> None:
        self._colours = colours
        self._picture = _Picture(self.image_size, colours)

    def _info(self) -> dict[str, Any]:
        distance = float(np.linalg.norm(self._state - self._goal_state))
        return {"state": self.state, "goal_state": self.goal_state, "distance_to_target": distance}


def _checked_state(state: Sequence[float] | np.ndarray) -> np.ndarray:
    """The state as float32, or a UserError."""
    checked = np.array(state, np.float32)
    if checked.shape != (2,) or not ((FLOOR[0] <= checked) & (checked <= FLOOR[1])).all():
        raise UserError(f"a state is (x, y) with both in {FLOOR[0]:g}..{FLOOR[1]:g}, not {state!r}")
    return checked


def _checked_rgb(name: str, rgb: Sequence[int] | np.ndarray) -> Rgb:
    """The colour as three Python integers, or a UserError."""
    checked = np.asarray(rgb)
    if checked.shape != (3,) or checked.dtype.kind not in "iu" or checked.min() < 0 or checked.max() > 255:
        raise UserError(f"colour of {name!r} is three integers in 0..255, not {rgb!r}")
    r, g, b = checked.tolist()
    return r, g, b

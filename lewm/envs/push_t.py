"""Push-T: a round agent pushes a T-shaped block; the equations and look of swm/PushT-v1, upon the package gym-pusht.

Positions are (x, y) in a window of 512 x 512, x to the right and y down; angles are in radians, velocities in units a
second. A state is seven numbers: agent x, y; block x, y; block angle; agent velocity x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lewm.envs.packages import needed
from lewm.envs.picture import check_settings, reduced
from lewm.envs.predicates import angle_between
from lewm.errors import UserError

WINDOW = 512.0
NATIVE = 224  # side of the picture that smaller ones are made of
REACH = 100.0  # how far away the target of action 1.0 is
DT, SUBSTEPS = 0.01, 10  # seconds; a step is 0.1 s
STIFFNESS, DAMPING = 100.0, 20.0  # of the agent's controller
RADIUS = 15.0  # of the agent
AGENT_STARTS, BLOCK_STARTS = (50.0, 450.0), (100.0, 400.0)  # on both axes
FARTHEST = 1e4  # a state beyond is an error
DONE_DISTANCE, DONE_ANGLE = 20.0, np.pi / 9

POSITIONS, BLOCK, ANGLE, VELOCITY = slice(0, 4), slice(2, 4), 4, slice(5, 7)


class PushT(gymnasium.Env[np.ndarray, np.ndarray]):
    """An agent, a block and a light green T; the observation is the picture, and `goal_state` is not drawn.

    The agent is moved towards `agent + 100 action` by a controller, through walls too. The block is at rest unless it
    is pushed: its velocity does not outlast a substep of 0.01 s. So the state determines what follows but for that
    substep, at most 5 units where the agent pushes at full speed; more only where it squeezes the block against a wall.

    The reward is minus the distance of state and goal over all seven numbers. An episode terminates where the positions
    (four numbers together) are within 20 of the goal's and the angle within 20 degrees, and is truncated after
    `max_steps`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, *, image_size: int = NATIVE, max_steps: int = 150, render_mode: str | None = "rgb_array"
    ) -> None:
        check_settings(image_size, max_steps, render_mode, native=NATIVE)
        self.image_size, self.max_steps, self.render_mode = image_size, max_steps, render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._inner = needed("gym_pusht.envs.pusht", world="push_t").PushTEnv()
        self._goal_state = np.array((256.0, 400.0, 256.0, 256.0, np.pi / 4, 0.0, 0.0))
        self._steps = 0
        self.set_state((256, 400, 256, 300, 0, 0, 0))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; `options` may fix `state` and `goal_state`, exactly.

        Random ones are at rest, uniform over the window's inner part, without an agent inside the block.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        goal, start = self._sample_state(), self._sample_state()
        self._goal_state = _checked_state(options.pop("goal_state", goal))
        self.set_state(options.pop("state", start))
        if options:
            raise UserError(f"unknown reset options {sorted(options)}; PushT reads state and goal_state")
        self._steps = 0
        return self.render(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """A tenth of a second: ten times `v += (100 (target - p) - 20 v) dt; p += v dt`, target = p0 + 100 action."""
        self.advance(action)
        reward = -float(np.linalg.norm(self.state - self._goal_state))
        done = near(self.state, self._goal_state)
        return self.render(), reward, done, self._steps >= self.max_steps, self._info()

    def advance(self, action: np.ndarray) -> None:
        """Move as `step` does, without a picture."""
        action = np.asarray(action, np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise UserError(f"an action is two finite numbers (x, y), not {action!r}")
        inner, (agent, _) = self._inner, self._bodies
        inner.n_contact_points = 0
        target = np.array(agent.position) + REACH * np.clip(action, -1, 1)
        for _ in range(SUBSTEPS):
            velocity = np.array(agent.velocity)
            velocity += (STIFFNESS * (target - np.array(agent.position)) - DAMPING * velocity) * DT
            agent.velocity = tuple(velocity.tolist())
            inner.space.step(DT)
        self._steps += 1

    def render(self) -> np.ndarray:
        """The picture: (image_size, image_size, 3) uint8; drawn at 512, brought to 224, and from there averaged."""
        native = self._inner._get_img(self._inner._draw(), NATIVE, NATIVE)
        return reduced(native, self.image_size)

    @property
    def state(self) -> np.ndarray:
        """Seven numbers, float64; the angle in [0, 2 pi)."""
        agent, block = self._bodies
        return np.array([*agent.position, *block.position, block.angle % (2 * np.pi), *agent.velocity])

    @property
    def goal_state(self) -> np.ndarray:
        """Seven numbers, float64."""
        return self._goal_state.copy()

    def set_state(self, state: Sequence[float] | np.ndarray) -> None:
        """Put agent and block anywhere, the block at rest, without memory of earlier contacts."""
        state = _checked_state(state)
        self._inner._setup()  # makes new bodies in a new space
        agent, block = self._bodies
        agent.position, agent.velocity = tuple(state[:2].tolist()), tuple(state[VELOCITY].tolist())
        block.angle = float(state[ANGLE])  # first: a turn is about the centre of gravity and moves the position
        block.position = tuple(state[BLOCK].tolist())
        self._inner.space.reindex_shapes_for_body(block)
        self._inner.space.reindex_shapes_for_body(agent)

    @property
    def _bodies(self) -> tuple[Any, Any]:
        """Agent and block."""
        return self._inner.agent, self._inner.block

    def _sample_state(self) -> np.ndarray:
        while True:
            agent, block = self.np_random.uniform(*AGENT_STARTS, 2), self.np_random.uniform(*BLOCK_STARTS, 2)
            state = np.array([*agent, *block, self.np_random.uniform(0, 2 * np.pi), 0, 0])
            self.set_state(state)
            if not self._overlap():
                return state

    def _overlap(self) -> bool:
        """Whether the agent is inside the block."""
        agent, block = self._bodies
        return any(shape.point_query(agent.position).distance < RADIUS for shape in block.shapes)

    def _info(self) -> dict[str, Any]:
        state, (_, block) = self.state, self._bodies
        return {
            "state": state,
            "proprio": np.concatenate([state[:2], state[VELOCITY]]),
            "pos_agent": state[:2],
            "vel_agent": state[VELOCITY],
            "block_pose": np.array([*block.position, block.angle]),  # not wrapped
            "goal_state": self.goal_state,
            "n_contacts": np.int64(np.ceil(self._inner.n_contact_points / SUBSTEPS)),
        }


def near(state: np.ndarray, goal: np.ndarray) -> bool:
    """Both positions together within 20 units, and the block's angle within 20 degrees."""
    apart = np.linalg.norm(np.asarray(state)[POSITIONS] - np.asarray(goal)[POSITIONS])
    return bool(apart < DONE_DISTANCE and angle_between(state[ANGLE], goal[ANGLE]) < DONE_ANGLE)


def _checked_state(state: Sequence[float] | np.ndarray) -> np.ndarray:
    """The state as float64 with its angle in [0, 2 pi), or a UserError."""
    checked = np.array(state, np.float64)
    if checked.shape != (7,) or not (np.abs(checked) <= FARTHEST).all():
        what = "a state is 7 numbers (agent x, y; block x, y; block angle; agent velocity x, y)"
        raise UserError(f"{what}, none beyond {FARTHEST:g}, not {state!r}")
    checked[ANGLE] %= 2 * np.pi
    return checked

"""A world that can be put into a recorded state, as an evaluation steps it: a frame and the true state, no more."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

from lewm.envs import make_world

Frame = UInt8[np.ndarray, "h w c"]
State = Float[np.ndarray, " x"]


class Restorable(Protocol):
    """What a world must have: frames as observations, its state, and a reset into a given one."""

    action_space: Any
    observation_space: Any

    @property
    def state(self) -> State: ...

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict]: ...

    def step(self, action: np.ndarray) -> tuple[Frame, float, bool, bool, dict]: ...

    def render(self) -> Frame: ...

    def close(self) -> None: ...


class Restored:
    """A world without its reward and its end: it goes on within reach of its own target, and after any step."""

    def __init__(self, world: Restorable) -> None:
        self.world = world
        space = world.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.low, self.high = (tuple(float(v) for v in bound) for bound in (space.low, space.high))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(h, w, c)."""
        return tuple(self.world.observation_space.shape)

    def restore(self, state: State) -> Frame:
        """Start at a recorded state; the frame there."""
        frame, _ = self.world.reset(seed=0, options={"state": state})
        return frame

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[Frame, State]:
        """The next frame and state."""
        frame, *_ = self.world.step(action)
        return frame, self.world.state

    def advance(self, action: Float[np.ndarray, " a"]) -> State:
        """One step; the state after it. Not drawn where the world has an `advance` of its own."""
        getattr(self.world, "advance", self.world.step)(action)
        return self.world.state

    def frame(self) -> Frame:
        """What it looks like now."""
        return self.world.render()

    def close(self) -> None:
        """Give back what the world holds."""
        self.world.close()


def restored_world(name: str, *, image_size: int) -> Restored:
    """A world by name; UserError for one that is not there."""
    return Restored(make_world(name, image_size=image_size))

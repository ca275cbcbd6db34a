"""Worlds that can be put into a recorded state, as an evaluation steps them: a frame and the true state, no more."""

from __future__ import annotations

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

from lewm.envs import make_world
from lewm.envs.two_room import TwoRoom

Frame = UInt8[np.ndarray, "h w c"]


class RestoredTwoRoom:
    """Two-Room without its reward and its end: it goes on within reach of its own target, and after any step."""

    def __init__(self, image_size: int) -> None:
        world = make_world("two_room", image_size=image_size)
        assert isinstance(world, TwoRoom)
        self.world = world
        space = world.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.low, self.high = (tuple(float(v) for v in bound) for bound in (space.low, space.high))

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.world.image_size, self.world.image_size, 3)

    def restore(self, state: Float[np.ndarray, " x"]) -> Frame:
        """Start at a recorded state, at rest; the frame there."""
        frame, _ = self.world.reset(seed=0, options={"state": state})
        return frame

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[Frame, Float[np.ndarray, " x"]]:
        """The next frame and state."""
        frame, *_ = self.world.step(action)
        return frame, self.world.state


def restored_world(name: str, *, image_size: int) -> RestoredTwoRoom:
    """A world by name; UserError for one that is not there."""
    if name != "two_room":
        make_world(name, image_size=image_size)
    return RestoredTwoRoom(image_size)

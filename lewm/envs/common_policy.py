"""Behaviour policies for any world with bounded actions: called with the environment, they return an action."""

from __future__ import annotations

from math import sqrt
from typing import Any

import gymnasium
import numpy as np

from lewm.errors import UserError


class Seeded:
    """A policy with its own generator, restarted by `reset`."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode."""
        self.rng = np.random.default_rng(seed)


class RandomActions(Seeded):
    """Uniform within the bounds, anew in every step."""

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        low, high = bounds_of(env)
        return self.rng.uniform(low, high).astype(np.float32)


class SmoothActions(Seeded):
    """Slowly changing actions: `x <- keep x + sqrt(1 - keep^2) N(0, std^2)`, clipped to [-1, 1], scaled to the bounds.

    The factor keeps the standard deviation at `std`, from the first step on; at 0.8, 21 % of numbers are saturated.
    """

    def __init__(self, *, keep: float = 0.9, std: float = 0.8) -> None:
        self.keep, self.std = keep, std
        super().__init__()

    def reset(self, seed: int) -> None:
        """Start an episode."""
        super().reset(seed)
        self.x: np.ndarray | None = None

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        low, high = bounds_of(env)
        noise = self.rng.normal(0.0, self.std, low.shape)
        self.x = noise if self.x is None else self.keep * self.x + sqrt(1 - self.keep**2) * noise
        share = (np.clip(self.x, -1, 1) + 1) / 2
        return (low + share * (high - low)).astype(np.float32)


POLICIES: dict[str, type] = {"smooth": SmoothActions, "random": RandomActions}


def bounds_of(env: gymnasium.Env[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest action, float64; UserError where there are none."""
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise UserError(f"actions must be numbers within finite bounds, not {space}")
    return space.low.astype(np.float64), space.high.astype(np.float64)

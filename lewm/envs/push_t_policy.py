"""Behaviour policies that collect data in `PushT`: called with the environment, they return an action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from lewm.envs.common_policy import RandomActions, Seeded
from lewm.envs.push_t import BLOCK, REACH, PushT


class NearBlock(Seeded):
    """Uniform moves whose targets are kept in a square around the block, so that they push it now and then."""

    def __init__(self, *, reach: float = 100.0) -> None:
        super().__init__()
        self.reach = reach

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        world = env.unwrapped
        assert isinstance(world, PushT), f"this policy pushes in PushT only, not in {type(world).__name__}"
        agent, block = world.state[:2], world.state[BLOCK]
        target = np.clip(agent + REACH * self.rng.uniform(-1, 1, 2), block - self.reach, block + self.reach)
        return np.clip((target - agent) / REACH, -1, 1).astype(np.float32)


POLICIES: dict[str, type] = {"near_block": NearBlock, "random": RandomActions}

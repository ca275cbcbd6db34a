"""Behaviour policies that collect data in `Cube`: called with the environment, they return an action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from lewm.envs.common_policy import RandomActions, Seeded, SmoothActions
from lewm.envs.cube import Cube
from lewm.envs.packages import needed

NOISE_SHARES = np.array((1.0, 1.0, 1.0, 3.0, 10.0))  # of x, y, z, yaw and gripper
FINAL_PLACES = np.array(((0.25, -0.35, 0.20), (0.60, 0.35, 0.35)))  # where the gripper goes when all is done
LEAST_MOVE = 0.4  # of the oracle, as a length before its gain: it moves at nearly full speed


class Expert(Seeded):
    """ogbench's Markov oracle: picks the cube up, puts it down on its target, moves away, then has a new target.

    Actions are disturbed by `N(0, xi^2)` times (1, 1, 1, 3, 10), with xi uniform in [0, `noise`] for each episode.
    """

    def __init__(self, *, noise: float = 0.1) -> None:
        self.noise = noise
        super().__init__()

    def reset(self, seed: int) -> None:
        """Start an episode."""
        super().reset(seed)
        self.xi, self.oracle = self.rng.uniform(0, self.noise), None

    def __call__(self, env: gymnasium.Env[Any, Any]) -> np.ndarray:
        world = env.unwrapped
        assert isinstance(world, Cube), f"this policy picks up a cube in Cube only, not in {type(world).__name__}"
        oracle = self.oracle or self._new_oracle(env)
        action = oracle.select_action(None, world.everything())
        action = action + self.rng.normal(0.0, self.xi, len(action)) * NOISE_SHARES
        if oracle.done:
            world.set_target(self.rng)
            oracle = None
        self.oracle = oracle
        return np.clip(action, -1, 1).astype(np.float32)

    def _new_oracle(self, env: Any) -> Any:
        """An oracle at the start of its task; what it draws from a stream that all share is drawn from our own."""
        module = needed("ogbench.manipspace.oracles.markov.cube_markov", world="cube")
        oracle = module.CubeMarkovOracle(env=env, min_norm=LEAST_MOVE)
        oracle._done, oracle._step = False, 0
        oracle._final_pos, oracle._final_yaw = self.rng.uniform(*FINAL_PLACES), self.rng.uniform(-np.pi, np.pi)
        return oracle


POLICIES: dict[str, type] = {"expert": Expert, "smooth": SmoothActions, "random": RandomActions}

"""Statistics of actions, from whatever episodes are named: means and standard deviations that merge exactly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import reduce

import numpy as np

from lewm.datasets.schema import Source
from lewm.errors import UserError

MIN_STD = 1e-6  # a dimension that varies less is constant: it is only centred


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations per dimension, in float64."""

    count: int
    mean: np.ndarray
    m2: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        # Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        return Moments(count, mean, self.m2 + other.m2 + delta**2 * self.count * other.count / count)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation (of the population)."""
        return np.sqrt(self.m2 / max(self.count, 1))


def moments(actions: np.ndarray) -> Moments:
    """Moments of an episode's valid actions: all rows but the last, which has no valid one. (length, a)."""
    valid = actions[:-1].astype(np.float64)
    if len(valid) == 0:
        return Moments(0, np.zeros(actions.shape[1]), np.zeros(actions.shape[1]))
    mean = valid.mean(0)
    return Moments(len(valid), mean, ((valid - mean) ** 2).sum(0))


def check_actions(actions: np.ndarray, where: str) -> None:
    """UserError naming the step if an action other than the last row's is NaN or infinite."""
    bad = ~np.isfinite(actions[:-1]).all(axis=1)
    if bad.any():
        step = int(np.argmax(bad))
        raise UserError(
            f"the action at step {step} of {where} is {actions[step].tolist()}; only the last row of an episode may "
            "lack one: repair or drop the episode"
        )


def action_statistics(source: Source, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std per action dimension over those episodes: (a,), (a,) float32; a constant dimension gets std 1."""
    empty = Moments(0, np.zeros(source.action_dim), np.zeros(source.action_dim))
    total = reduce(Moments.__add__, (moments(source.actions(int(e))) for e in episodes), empty)
    std = total.std
    constant = std < MIN_STD
    if constant.any() and total.count:
        warnings.warn(f"constant action dimensions in {source.path.name}: {np.flatnonzero(constant)}", stacklevel=2)
    return total.mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)

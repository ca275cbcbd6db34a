"""A few rollouts made ready to be seen: what happened, what was imagined by the nearest real frame, and the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from lewm.datasets.schema import Source
from lewm.plan.evaluate import Evaluation, Rollout
from lewm.plan.manifest import Manifest
from lewm.probes.nearest import Neighbours
from lewm.probes.parts import measured_episodes


class Planned(Protocol):
    """What was run."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def planned(self) -> Evaluation: ...

    def distances(self, rollout: Rollout) -> np.ndarray: ...


@dataclass(frozen=True)
class Shown:
    """One rollout with its pictures.

    Args:
        rollout: with frames and predictions kept.
        imagined: nearest real frame to the prediction of every executed block.
        goal: the goal's frame.
        distances: true distance to the goal at the start and after every step.
    """

    rollout: Rollout
    imagined: UInt8[np.ndarray, "n h w c"]
    goal: UInt8[np.ndarray, "h w c"]
    distances: Float[np.ndarray, " t"]

    @property
    def solved(self) -> bool:
        """Whether it arrived."""
        return self.rollout.solved_at is not None

    @property
    def frameskip(self) -> int:
        """Steps of a block."""
        return (len(self.rollout.frames) - 1) // len(self.imagined)

    @property
    def after_blocks(self) -> list[UInt8[np.ndarray, "h w c"]]:
        """Frames at the start and after every block."""
        return self.rollout.frames[:: self.frameskip]

    @property
    def title(self) -> str:
        """How it ended."""
        least = f"{self.distances.min():.3g}"
        end = f"solved after {self.rollout.solved_at} steps" if self.solved else f"not solved, {least} away at best"
        return f"{self.rollout.key}: {end}"


def shown_of(runs: Planned, model: Any, source: Source, split: str) -> list[Shown]:
    """The rollouts of which frames were kept; [] where none was planned for."""
    kept = [rollout for rollout in runs.planned.rollouts if rollout.imagined]
    if not kept:
        return []
    own = measured_episodes(source, split, model.interface.split_seed)
    neighbours, goals = Neighbours.of(model, source, own), goal_frames(runs.manifest, source)
    return [Shown(r, neighbours.frames(np.stack(r.imagined)), goals[r.key], runs.distances(r)) for r in kept]


def goal_frames(manifest: Manifest, source: Source) -> dict[str, UInt8[np.ndarray, "h w c"]]:
    """The goal's frame of each pair, by its key."""
    number = {key: e for e, key in enumerate(source.keys)}
    return {p.key: source.frames(number[p.episode], np.array([p.goal]))[0] for p in manifest.pairs}

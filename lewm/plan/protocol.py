"""What planners need from a model, and what they promise to whoever runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lewm.clip import Interface

if TYPE_CHECKING:
    from lewm.plan.problem import Problem


class Model(Protocol):
    """A world model that takes raw inputs: uint8 frames, and actions in the environment's own units.

    Rows of a batch must not depend on each other. The gradient solver asks more of `rollout`: that gradients flow from
    its result to `future`, so it must not run under `no_grad` of its own; its weights may well be frozen.
    """

    @property
    def interface(self) -> Interface: ...

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]:
        """Embedding of each frame."""
        ...

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b t-1 k a"], future: Float[Tensor, "b s n k a"]
    ) -> Float[Tensor, "b s n d"]:
        """Embeddings 1..n blocks after the context's last frame; `past` lies between the context's frames."""
        ...


@dataclass(frozen=True)
class Warm:
    """What is left of a plan once its first blocks were executed; raw actions.

    `blocks` (b, m, k, a) are those of the plan itself, 0 < m < n; `elites` (b, e, m, k, a) the best candidates beside
    it, where the solver keeps any.
    """

    blocks: Float[Tensor, "b m k a"]
    elites: Float[Tensor, "b e m k a"] | None = None

    def rows(self, index: Tensor) -> Warm:
        """Of some of the episodes."""
        return Warm(self.blocks[index], None if self.elites is None else self.elites[index])


@dataclass(frozen=True)
class Plan:
    """What a solver found for each of `b` episodes: raw actions within the bounds, and how the search went.

    `best` and `mean` (i, b) are the least and the mean cost over the candidates of each iteration. A candidate whose
    cost is not finite counts in neither.
    """

    blocks: Float[Tensor, "b n k a"]
    best: Float[Tensor, "i b"]
    mean: Float[Tensor, "i b"]
    elites: Float[Tensor, "b e n k a"] | None = None

    def after(self, executed: int) -> Warm | None:
        """The rest once `executed` blocks are done; None where nothing is left."""
        if executed >= self.blocks.shape[1]:
            return None
        return Warm(self.blocks[:, executed:], None if self.elites is None else self.elites[:, :, executed:])


class Planner(Protocol):
    """A solver: a pure function of the problem (its noise included) and of what is left of the last plan."""

    @property
    def horizon(self) -> int:
        """Blocks planned ahead, n."""
        ...

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """Blocks of least predicted cost for every episode of the problem."""
        ...


class Trace:
    """Least and mean cost of each iteration, gathered by a solver as it goes."""

    def __init__(self) -> None:
        self.best: list[Tensor] = []
        self.mean: list[Tensor] = []

    def add(self, costs: Float[Tensor, "b s"]) -> None:
        """Note an iteration."""
        finite = torch.isfinite(costs)
        self.best.append(costs.amin(dim=1))
        self.mean.append(torch.where(finite, costs, 0.0).sum(dim=1) / finite.sum(dim=1))

    def plan(self, blocks: Float[Tensor, "b n k a"], elites: Float[Tensor, "b e n k a"] | None = None) -> Plan:
        """The result, with what was noted."""
        return Plan(blocks, torch.stack(self.best), torch.stack(self.mean), elites)

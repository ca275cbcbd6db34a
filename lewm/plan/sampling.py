"""Steps that sampling solvers share: a start from the last plan, candidates around a mean, the best of them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lewm.plan.problem import Problem
from lewm.plan.protocol import Warm


def start(problem: Problem, warm: Warm | None, horizon: int) -> Float[Tensor, "b n k a"]:
    """Where a search begins: what is left of the last plan, then the mean action (u = 0)."""
    origin = problem.origin(horizon)
    if warm is not None:
        rest = problem.space.clip(problem.space.scaled(warm.blocks.to(origin)))
        origin[:, : rest.shape[1]] = rest
    return origin


def around(
    problem: Problem, mean: Float[Tensor, "b n k a"], std: Tensor | float, noise: Float[Tensor, "b s n k a"]
) -> Float[Tensor, "b s n k a"]:
    """clip(mean + std * noise), the mean itself being the first candidate."""
    scale = std[:, None] if isinstance(std, Tensor) else std
    u = problem.space.clip(mean[:, None] + scale * noise)
    u[:, 0] = problem.space.clip(mean)
    return u


def best(costs: Float[Tensor, "b s"], num: int) -> Int[Tensor, "b num"]:
    """The `num` cheapest candidates of each episode, cheapest first, of equal ones the earlier."""
    return costs.sort(dim=1, stable=True).indices[:, :num]


def take(u: Float[Tensor, "b s n k a"], index: Int[Tensor, "b e"]) -> Float[Tensor, "b e n k a"]:
    """Some candidates of each episode."""
    return u[torch.arange(len(u), device=u.device)[:, None], index]


def elites_of(
    u: Float[Tensor, "b s n k a"], costs: Float[Tensor, "b s"], num: int
) -> tuple[Float[Tensor, "b e n k a"], Bool[Tensor, "b e"]]:
    """The `num` cheapest candidates, cheapest first, and which of them count.

    A candidate without a finite cost is no elite: where there are too few others, copies of the cheapest, which do not
    count, fill up the number.
    """
    index = best(costs, num)
    counted = torch.isfinite(costs.gather(1, index))
    return take(u, torch.where(counted, index, index[:, :1])), counted


class BestSeen:
    """The cheapest candidate of every episode over all iterations."""

    def __init__(self) -> None:
        self.cost: Tensor | None = None
        self.u: Tensor | None = None

    def add(self, u: Float[Tensor, "b s n k a"], costs: Float[Tensor, "b s"]) -> None:
        """Keep what is cheaper than before."""
        cost, index = costs.min(dim=1)
        found = take(u, index[:, None])[:, 0]
        if self.cost is None or self.u is None:
            self.cost, self.u = cost, found
            return
        better = cost < self.cost
        self.cost = torch.where(better, cost, self.cost)
        self.u = torch.where(better[:, None, None, None], found, self.u)

    def raw(self, problem: Problem) -> Float[Tensor, "b n k a"]:
        """Its raw actions."""
        assert self.u is not None, "nothing was added"
        return problem.space.raw(self.u)

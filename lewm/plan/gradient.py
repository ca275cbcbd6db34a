"""Planning by gradient: Adam on the actions, through the model's rollout, from several starts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lewm.plan.problem import Problem
from lewm.plan.protocol import Plan, Trace, Warm
from lewm.plan.sampling import BestSeen, start
from lewm.plan.settings import above, at_least


class Gradient:
    """Projected Adam [0] on u: u <- clip(u - lr * adam(d cost / d u)), the best of several starts.

    The first start is what is left of the last plan, then the mean action; the others are drawn around it. Every step's
    gradient is Adam's own, one start's not mixed with another's. It finds what lies downhill: round a wall it does not
    see it finds no way.

    [0] D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015.

    Args:
        horizon: blocks planned ahead.
        starts: number of searches beside each other.
        iterations: steps of each.
        lr: length of a step in each number, on the scale of the search.
        std: standard deviation of the starts.
        betas: decay of Adam's two means.
    """

    def __init__(
        self,
        *,
        horizon: int = 5,
        starts: int = 10,
        iterations: int = 60,
        lr: float = 0.1,
        std: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        at_least(1, horizon=horizon, starts=starts, iterations=iterations)
        above(0, lr=lr, std=std)
        at_least(0, **{"first beta": betas[0], "second beta": betas[1]})
        above(0, **{"1 - first beta": 1 - betas[0], "1 - second beta": 1 - betas[1]})
        self.horizon, self.starts, self.iterations = horizon, starts, iterations
        self.lr, self.std, self.betas = lr, std, betas

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """The best blocks that any start came by, the last ones included."""
        first = start(problem, warm, self.horizon)[:, None]
        noise = problem.noise.white(0, *problem.block_shape(self.starts, self.horizon))
        noise[:, 0] = 0
        u = problem.space.clip(first + self.std * noise)
        adam, trace, seen = _Adam(u, self.lr, self.betas), Trace(), BestSeen()
        for _ in range(self.iterations):
            costs, gradient = problem.costs_and_gradients(u)
            trace.add(costs)
            seen.add(u, costs)
            u = problem.space.clip(u - adam.step(gradient))
        seen.add(u, problem.costs(u))
        return trace.plan(seen.raw(problem))


class _Adam:
    """Adam's step; torch's own would have to own `u`, which the projection replaces."""

    def __init__(self, u: Float[Tensor, "b s n k a"], lr: float, betas: tuple[float, float]) -> None:
        self.lr, self.betas, self.count = lr, betas, 0
        self.first, self.second = torch.zeros_like(u), torch.zeros_like(u)

    def step(self, gradient: Float[Tensor, "b s n k a"]) -> Float[Tensor, "b s n k a"]:
        """What to subtract."""
        low, high = self.betas
        self.count += 1
        self.first = low * self.first + (1 - low) * gradient
        self.second = high * self.second + (1 - high) * gradient.square()
        std = (self.second / (1 - high**self.count)).sqrt()
        return self.lr * (self.first / (1 - low**self.count)) / (std + 1e-8)

"""The floors under every solver: the best of random plans, and actions that look at nothing."""

from __future__ import annotations

import torch

from lewm.errors import UserError
from lewm.plan.problem import Problem
from lewm.plan.protocol import Plan, Trace, Warm
from lewm.plan.sampling import BestSeen, around, start
from lewm.plan.settings import above, at_least


class RandomShooting:
    """The cheapest of `iterations * samples` candidates around the start, none of which learns from another.

    With the defaults it asks the model as often as the paper's CEM does.

    Args:
        horizon: blocks planned ahead.
        samples: candidates an iteration.
        iterations: how often they are drawn anew.
        std: of the candidates, on the scale of the search.
    """

    def __init__(self, *, horizon: int = 5, samples: int = 300, iterations: int = 30, std: float = 1.0) -> None:
        at_least(1, horizon=horizon, samples=samples, iterations=iterations)
        above(0, std=std)
        self.horizon, self.samples, self.iterations, self.std = horizon, samples, iterations, std

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """The cheapest candidate of all."""
        mean = start(problem, warm, self.horizon)
        trace, seen = Trace(), BestSeen()
        for i in range(self.iterations):
            noise = problem.noise.white(i, *problem.block_shape(self.samples, self.horizon))
            u = around(problem, mean, self.std, noise)
            costs = problem.costs(u)
            trace.add(costs)
            seen.add(u, costs)
        return trace.plan(seen.raw(problem))


class RandomPolicy:
    """Actions uniform within the bounds, whatever model and goal are: the floor of PROTOCOL's tables.

    Its plan has no iterations. UserError where a bound is infinite.

    Args:
        horizon: blocks drawn at once.
    """

    def __init__(self, *, horizon: int = 5) -> None:
        at_least(1, horizon=horizon)
        self.horizon = horizon

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """Blocks that were drawn, not chosen."""
        low, high = problem.space.low, problem.space.high
        if not torch.isfinite(high - low).all():
            raise UserError("a uniform random policy needs finite action bounds; give them, or leave it out")
        drawn = problem.noise.uniform("random policy", *problem.block_shape(1, self.horizon)[1:])
        none = torch.empty(0, len(drawn), device=drawn.device)
        return Plan((low + (high - low) * drawn).clamp(low, high), none, none)

"""Model predictive path integral control: a mean of all candidates, weighted by how cheap they are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lewm.plan.problem import Problem
from lewm.plan.protocol import Plan, Trace, Warm
from lewm.plan.sampling import around, start
from lewm.plan.settings import above, at_least


class MPPI:
    """MPPI [0]: mean <- sum_j w_j u_j, w_j = softmax(-cost_j / temperature), candidates u_j ~ clip(N(mean, std^2)).

    The temperature is in units of the standard deviation of the iteration's costs, so that it means the same in any
    latent space. The penalty of [0] for leaving the sampling distribution's own mean is left out. The standard
    deviation falls geometrically from `std` to `last_std` over the iterations; [0] has one of constant width. Every
    candidate counts, so a plan depends smoothly on its costs.

    [0] G. Williams et al., Information theoretic MPC for model-based reinforcement learning, ICRA 2017.

    Args:
        horizon: blocks planned ahead.
        samples: candidates an iteration.
        iterations: how often.
        std: standard deviation of the candidates in the first iteration, on the scale of the search.
        last_std: in the last one.
        temperature: how evenly candidates are weighted.
        exponent: colour of the noise over the steps, 0 for white.
    """

    def __init__(
        self,
        *,
        horizon: int = 5,
        samples: int = 300,
        iterations: int = 30,
        std: float = 1.0,
        last_std: float = 0.3,
        temperature: float = 0.1,
        exponent: float = 0.0,
    ) -> None:
        at_least(1, horizon=horizon, samples=samples, iterations=iterations)
        above(0, std=std, last_std=last_std, temperature=temperature)
        at_least(0, exponent=exponent)
        self.horizon, self.samples, self.iterations = horizon, samples, iterations
        self.std, self.last_std, self.temperature, self.exponent = std, last_std, temperature, exponent

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """Blocks at the weighted mean of the last iteration."""
        mean = start(problem, warm, self.horizon)
        trace = Trace()
        shape = problem.block_shape(self.samples, self.horizon)
        for i in range(self.iterations):
            std = self.std * (self.last_std / self.std) ** (i / max(1, self.iterations - 1))
            u = around(problem, mean, std, problem.noise.coloured(i, *shape, exponent=self.exponent))
            costs = problem.costs(u)
            mean = (weights(costs, self.temperature)[..., None, None, None] * u).sum(dim=1)
            trace.add(costs)
        return trace.plan(problem.space.raw(mean))


def weights(costs: Float[Tensor, "b s"], temperature: float) -> Float[Tensor, "b s"]:
    """softmax(-(cost - least) / (temperature * std)); 0 where a cost is infinite, even where all costs are equal."""
    finite = torch.isfinite(costs)
    num = finite.sum(dim=1, keepdim=True)
    above_least = costs - costs.amin(dim=1, keepdim=True)
    known = torch.where(finite, above_least, 0.0)
    mean = known.sum(dim=1, keepdim=True) / num
    std = (torch.where(finite, known - mean, 0.0).square().sum(dim=1, keepdim=True) / num).sqrt()
    scale = temperature * std.clamp(min=torch.finfo(costs.dtype).tiny / temperature)
    return torch.softmax(-above_least / scale, dim=1)

"""The cross-entropy method: sample, keep the elites, fit a Gaussian to them, again."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lewm.plan.problem import Problem
from lewm.plan.protocol import Plan, Trace, Warm
from lewm.plan.sampling import BestSeen, around, elites_of, start
from lewm.plan.settings import above, at_least, elites_among, one_of


class CEM:
    """CEM [0] with the paper's settings [1]: 300 samples, 30 elites, 30 iterations, 5 blocks, from N(0, I).

        u_j ~ clip(N(mean, std^2)), mean and std <- those of the elites, in each number of each action alone.

    The start is N(0, I) on the scale of `ActionSpace`: the mean and standard deviation of the training actions. The
    mean itself is always the first candidate. It is not clipped, and need not be: it is a mean of candidates that are.
    The search ends at the mean, as the paper's does, or at the best candidate seen.

    [0] R. Y. Rubinstein, The cross-entropy method for combinatorial and continuous optimization, 1999.
    [1] LeWorldModel, arXiv 2603.19312, appendix on planning.

    Args:
        horizon: blocks planned ahead.
        samples: candidates an iteration.
        elites: how many of them the next Gaussian is fitted to.
        iterations: how often.
        std: standard deviation at the start, on the scale of the search.
        min_std: the Gaussian never becomes narrower than this, on the same scale; 0 is the paper's.
        exponent: colour of the noise over the steps; 0 is white and the paper's, 2 finds ways round obstacles.
        returns: `mean` of the last elites, or the `best` candidate of all iterations.
    """

    def __init__(
        self,
        *,
        horizon: int = 5,
        samples: int = 300,
        elites: int = 30,
        iterations: int = 30,
        std: float = 1.0,
        min_std: float = 0.0,
        exponent: float = 0.0,
        returns: str = "mean",
    ) -> None:
        at_least(1, horizon=horizon, iterations=iterations)
        elites_among(elites, samples)
        above(0, std=std)
        at_least(0, min_std=min_std, exponent=exponent)
        one_of(("mean", "best"), returns=returns)
        self.horizon, self.samples, self.elites, self.iterations = horizon, samples, elites, iterations
        self.std, self.min_std, self.exponent, self.returns = std, min_std, exponent, returns

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """Blocks at the mean of the last elites, or the best ones seen."""
        mean = start(problem, warm, self.horizon)
        std = torch.full_like(mean, self.std)
        trace, seen = Trace(), BestSeen()
        shape = problem.block_shape(self.samples, self.horizon)
        for i in range(self.iterations):
            noise = problem.noise.coloured(i, *shape, exponent=self.exponent)
            u = around(problem, mean, std, noise)
            costs = problem.costs(u)
            mean, std = fit(*elites_of(u, costs, self.elites), self.min_std)
            trace.add(costs)
            seen.add(u, costs)
        return trace.plan(seen.raw(problem) if self.returns == "best" else problem.space.raw(mean))


def fit(
    elites: Float[Tensor, "b e n k a"], counted: Bool[Tensor, "b e"], min_std: float
) -> tuple[Float[Tensor, "b n k a"], Float[Tensor, "b n k a"]]:
    """Mean and standard deviation of each number over the elites that count, at least one of each episode.

    The standard deviation of a single one is 0; it is never below `min_std`.
    """
    each = counted[..., None, None, None]
    num = counted.sum(dim=1)[:, None, None, None]
    mean = torch.where(each, elites, 0.0).sum(dim=1) / num
    squares = torch.where(each, elites - mean[:, None], 0.0).square().sum(dim=1)
    return mean, (squares / (num - 1).clamp(min=1)).sqrt().clamp(min=min_std)

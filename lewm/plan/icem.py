"""Improved CEM: noise that is coloured in time, elites that are kept, a start from the last plan."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lewm.plan.cem import fit
from lewm.plan.problem import Problem
from lewm.plan.protocol import Plan, Trace, Warm
from lewm.plan.sampling import BestSeen, around, elites_of, start
from lewm.plan.settings import above, at_least, elites_among


class ICEM:
    """iCEM [0]: CEM with samples whose actions hang together in time, so that they lead somewhere.

    Iteration i draws max(samples * decay^-i, 2 * elites) candidates with a power spectrum of f^-exponent over the steps
    of the horizon. A share `keep` of the elites competes again in the next iteration and, shifted by the blocks that
    were executed, in the next plan; what they lack at their end is drawn anew. The mean is the first candidate of every
    iteration (in [0] of the last alone), and the Gaussian moves by `momentum`:

        mean <- momentum * mean + (1 - momentum) * mean of the elites, std alike.

    The search ends at the best candidate seen.

    [0] C. Pinneri et al., Sample-efficient cross-entropy method for real-time planning, CoRL 2020.

    Args:
        horizon: blocks planned ahead.
        samples: candidates of the first iteration.
        elites: how many of them the next Gaussian is fitted to.
        iterations: how often.
        std: standard deviation at the start, on the scale of the search.
        exponent: colour of the noise, 0 for white; larger is smoother.
        keep: share of the elites that are kept.
        decay: factor by which the number of samples falls each iteration.
        momentum: weight of the last Gaussian in the next, 0 to below 1.
        min_std: the Gaussian never becomes narrower than this.
    """

    def __init__(
        self,
        *,
        horizon: int = 5,
        samples: int = 300,
        elites: int = 30,
        iterations: int = 30,
        std: float = 1.0,
        exponent: float = 2.0,
        keep: float = 0.3,
        decay: float = 1.0,
        momentum: float = 0.1,
        min_std: float = 0.0,
    ) -> None:
        at_least(1, horizon=horizon, iterations=iterations, decay=decay)
        elites_among(elites, samples)
        above(0, std=std)
        at_least(0, min_std=min_std, exponent=exponent, keep=keep, momentum=momentum)
        at_least(0, **{"1 - keep": 1 - keep})
        above(0, **{"1 - momentum": 1 - momentum})
        self.horizon, self.samples, self.elites, self.iterations = horizon, samples, elites, iterations
        self.std, self.exponent, self.keep, self.decay = std, exponent, keep, decay
        self.momentum, self.min_std = momentum, min_std

    def plan(self, problem: Problem, warm: Warm | None = None) -> Plan:
        """The best blocks seen, with the elites that the next plan may start from."""
        mean = start(problem, warm, self.horizon)
        std = torch.full_like(mean, self.std)
        kept = self._shifted(problem, warm)
        trace, seen = Trace(), BestSeen()
        for i in range(self.iterations):
            u = torch.cat([around(problem, mean, std, self._noise(problem, i)), kept], dim=1)
            costs = problem.costs(u)
            elites, counted = elites_of(u, costs, self.elites)
            new_mean, new_std = fit(elites, counted, 0.0)
            mean = self.momentum * mean + (1 - self.momentum) * new_mean
            std = (self.momentum * std + (1 - self.momentum) * new_std).clamp(min=self.min_std)
            kept = elites[:, : self._num_kept]
            trace.add(costs)
            seen.add(u, costs)
        return trace.plan(seen.raw(problem), problem.space.raw(kept))

    @property
    def _num_kept(self) -> int:
        return round(self.keep * self.elites)

    def _noise(self, problem: Problem, i: int) -> Float[Tensor, "b s n k a"]:
        num = max(int(self.samples * self.decay**-i), 2 * self.elites)
        return problem.noise.coloured(i, *problem.block_shape(num, self.horizon), exponent=self.exponent)

    def _shifted(self, problem: Problem, warm: Warm | None) -> Float[Tensor, "b e n k a"]:
        """The elites of the last plan, their executed blocks gone and new ones drawn at the end."""
        if warm is None or warm.elites is None:
            return problem.origin(self.horizon)[:, None][:, :0]
        rest = problem.space.scaled(warm.elites.to(problem.z.device))
        shape = problem.block_shape(rest.shape[1], self.horizon)
        drawn = problem.noise.coloured("elites", *shape, exponent=self.exponent)
        drawn[:, :, : rest.shape[2]] = rest
        return problem.space.clip(drawn)

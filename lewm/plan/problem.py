"""One decision of several episodes: where they are, where they are to be, and what any actions would cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lewm.errors import GuardStop, UserError
from lewm.plan.cost import Cost
from lewm.plan.noise import Noise
from lewm.plan.parallel import in_threads
from lewm.plan.protocol import Model
from lewm.plan.space import ActionSpace


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a solver is given. Candidates `u` (b, s, n, k, a) are on the scale of `space`, within its bounds.

    Args:
        model: rolls actions forward.
        z: embeddings (b, t, d) of the frames seen last, 1 <= t; at most the model's history are of use.
        past: raw blocks (b, t-1, k, a) executed between them.
        goal: embeddings (b, g, d) of the goal frames.
        cost: judges predictions, see `lewm.plan.cost`.
        space: bounds and scale of actions, on the device of `z`.
        noise: the random numbers of this plan.
        chunk: most candidates, of all episodes together, that are rolled out at once; bounds memory (which
            grows with the horizon too), changes nothing.
        threads: chunks are divided among so many threads, see `lewm.plan.parallel`; model and cost must bear that.
            Where gradients are asked for there is one.
        rougher: rolls candidates out in the model's stead, as `lewm.plan.mixed` does; what is `predicted` of the chosen
            blocks is the model's own.
    """

    model: Model
    z: Float[Tensor, "b t d"]
    past: Float[Tensor, "b t-1 k a"]
    goal: Float[Tensor, "b g d"]
    cost: Cost
    space: ActionSpace
    noise: Noise
    chunk: int = 4096
    threads: int = 1
    rougher: Model | None = None

    def block_shape(self, samples: int, horizon: int) -> tuple[int, int, int, int]:
        """(s, n, k, a)."""
        return samples, horizon, self.model.interface.frameskip, self.space.dim

    def origin(self, horizon: int) -> Float[Tensor, "b n k a"]:
        """u = 0 for every episode: the mean action."""
        return torch.zeros(len(self.z), *self.block_shape(1, horizon)[1:], device=self.z.device)

    @torch.no_grad()
    def costs(self, u: Float[Tensor, "b s n k a"]) -> Float[Tensor, "b s"]:
        """Cost of every candidate; inf where it is not finite.

        GuardStop if no candidate of an episode has a finite one: then the model is broken, and any choice would be
        chance.
        """
        return self._checked(torch.cat(in_threads(self._cost, self._chunks(u, self.threads), self.threads), dim=1))

    def costs_and_gradients(
        self, u: Float[Tensor, "b s n k a"]
    ) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s n k a"]]:
        """The same with each cost's gradient in its own candidate, 0 where that is not finite.

        UserError if the model's rollout lets no gradient through.
        """
        costs, gradients = [], []
        # Inference mode cannot be left for the tensors made in it, but for copies made outside.
        with torch.inference_mode(False), torch.enable_grad():
            free = self._copied()
            for part in self._chunks(u):
                leaf = part.detach().clone().requires_grad_()
                cost = free._cost(leaf)
                if not cost.requires_grad:
                    raise UserError(
                        "the model's rollout lets no gradient through, which the gradient solver needs; "
                        "choose another solver"
                    )
                (gradient,) = torch.autograd.grad(cost.sum(), leaf)
                costs.append(cost.detach())
                gradients.append(torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
        return self._checked(torch.cat(costs, dim=1)), torch.cat(gradients, dim=1)

    @torch.no_grad()
    def predicted(self, blocks: Float[Tensor, "b n k a"]) -> Float[Tensor, "b n d"]:
        """What the model expects of raw blocks."""
        return self.model.rollout(self.z, self.past, blocks[:, None])[:, 0]

    def _cost(self, u: Float[Tensor, "b s n k a"]) -> Float[Tensor, "b s"]:
        actions = self.space.raw(u)
        model = self.model if self.rougher is None else self.rougher
        return self.cost(model.rollout(self.z, self.past, actions), self.goal, actions)

    def _chunks(self, u: Float[Tensor, "b s n k a"], threads: int = 1) -> tuple[Tensor, ...]:
        share = math.ceil(u.shape[1] / threads)
        return u.split(max(1, min(share, self.chunk // threads // len(u))), dim=1)

    def _checked(self, costs: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
        costs = torch.nan_to_num(costs, nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
        lost = torch.isinf(costs).all(dim=1)
        if lost.any():
            episode = self.noise.episodes[int(lost.nonzero()[0])]
            raise GuardStop(
                f"no plan for episode {episode} has a finite cost at step {self.noise.step}; check the model"
            )
        return costs

    def _copied(self) -> Problem:
        copies = {name: getattr(self, name).clone() for name in ("z", "past", "goal")}
        space = self.space.to(self.z.device)
        return replace(self, space=space, **copies)

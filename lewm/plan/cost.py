"""What a plan is judged by: small functions of predicted embeddings, goal embeddings and actions.

A cost maps `predicted` (b, s, n, d), `goal` (b, g, d) and raw `actions` (b, s, n, k, a) to (b, s), in float32; less is
better. It must treat candidates alone, because they come in chunks.
"""

from __future__ import annotations

from collections.abc import Callable

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lewm.errors import UserError
from lewm.plan.space import ActionSpace

Cost = Callable[[Tensor, Tensor, Tensor], Tensor]


def last_step(
    predicted: Float[Tensor, "b s n d"], goal: Float[Tensor, "b g d"], actions: Float[Tensor, "b s n k a"]
) -> Float[Tensor, "b s"]:
    """|z_n - z_goal|^2, the paper's [0]; of several goal frames the nearest counts.

    [0] LeWorldModel, arXiv 2603.19312, section on planning.
    """
    return _to_nearest_goal(predicted[:, :, -1:], goal)[..., 0]


def sum_over_steps(
    predicted: Float[Tensor, "b s n d"], goal: Float[Tensor, "b g d"], actions: Float[Tensor, "b s n k a"]
) -> Float[Tensor, "b s"]:
    """sum_i |z_i - z_goal|^2 over the n blocks: be near early, and stay; of several goal frames the nearest counts."""
    return _to_nearest_goal(predicted, goal).sum(dim=-1)


def nearest_step(
    predicted: Float[Tensor, "b s n d"], goal: Float[Tensor, "b g d"], actions: Float[Tensor, "b s n k a"]
) -> Float[Tensor, "b s"]:
    """min_i |z_i - z_goal|^2 over the n blocks: be there once, where the first hit counts."""
    return _to_nearest_goal(predicted, goal).amin(dim=-1)


def frames_in_order(
    predicted: Float[Tensor, "b s n d"], goal: Float[Tensor, "b g d"], actions: Float[Tensor, "b s n k a"]
) -> Float[Tensor, "b s"]:
    """sum_j |z_{n-g+j} - goal_j|^2: the last g predictions are to be the g goal frames, a block apart, in their order.

    UserError if there are more goal frames than blocks.
    """
    n, g = predicted.shape[2], goal.shape[1]
    if g > n:
        raise UserError(f"{g} goal frames in order need a horizon of as many blocks, not {n}")
    return (predicted[:, :, n - g :].float() - goal[:, None].float()).square().sum(dim=(-1, -2))


def action_penalty(space: ActionSpace) -> Cost:
    """A cost: the mean over steps of |u|^2, the squared action on the scale of the search (0 for the mean action)."""

    def penalty(predicted: Tensor, goal: Tensor, actions: Float[Tensor, "b s n k a"]) -> Float[Tensor, "b s"]:
        u = space.to(actions.device).scaled(actions)
        return u.float().square().sum(dim=-1).mean(dim=(-1, -2))

    return penalty


def weighted(*terms: tuple[float, Cost]) -> Cost:
    """A cost: the weighted sum of others, as in `weighted((1.0, last_step), (0.1, action_penalty(space)))`."""
    if not terms:
        raise UserError("a weighted sum of costs needs at least one of them")

    def total(predicted: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        first, *others = (weight * cost(predicted, goal, actions) for weight, cost in terms)
        return sum(others, start=first)

    return total


COSTS: dict[str, Cost] = {
    "last": last_step,
    "sum": sum_over_steps,
    "nearest": nearest_step,
    "order": frames_in_order,
}


def _to_nearest_goal(predicted: Float[Tensor, "b s n d"], goal: Float[Tensor, "b g d"]) -> Float[Tensor, "b s n"]:
    goals = rearrange(goal, "b g d -> g b 1 1 d").float()
    # One goal frame at a time: b * s * n * g * d numbers at once would be the largest tensor of all.
    distances = [(predicted.float() - one).square().sum(dim=-1) for one in goals]
    nearest = distances[0]
    for other in distances[1:]:
        nearest = nearest.minimum(other)
    return nearest

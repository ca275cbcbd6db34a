"""Between the environment's actions, which a model takes, and the scale on which solvers search."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from lewm.clip import Interface
from lewm.errors import UserError

Numbers = Sequence[float] | Tensor


class ActionSpace:
    """Raw actions `a = mean + std * u`, within bounds; solvers search over `u`, where N(0, I) is a sensible start.

    With the training split's mean and standard deviation N(0, I) has the spread of the data, which is what the paper's
    solver starts from [0]. What lies outside the bounds is moved onto them before a model sees it and before a solver
    learns from it, because an environment would do the same and a model has never seen such an action.

    [0] LeWorldModel, arXiv 2603.19312, appendix on planning.

    Args:
        low: least value of each action dimension, in the environment's units; -inf where it has none.
        high: largest value of each.
        mean: what u = 0 stands for; the middle of the bounds if not given.
        std: what u = 1 is away from it; half of the bounds' distance if not given.
    """

    def __init__(self, low: Numbers, high: Numbers, *, mean: Numbers | None = None, std: Numbers | None = None) -> None:
        self.low, self.high = _numbers(low), _numbers(high)
        if self.low.shape != self.high.shape or not (self.low < self.high).all():
            raise UserError(f"action bounds must be low < high in each dimension, got {_text(low)} and {_text(high)}")
        if (mean is None) != (std is None):
            raise UserError("an action scale is a mean and a standard deviation; one of them is missing")
        self.mean = _numbers(mean) if mean is not None else (self.low + self.high) / 2
        self.std = _numbers(std) if std is not None else (self.high - self.low) / 2
        if not self.mean.shape == self.std.shape == self.low.shape:
            raise UserError(f"action bounds have {len(self.low)} numbers, their mean {len(self.mean)}")
        scale = torch.stack([self.mean, self.std])
        if not (torch.isfinite(scale).all() and (self.std > 0).all()):
            raise UserError(
                f"an action scale must be finite and above 0, got mean {_text(self.mean)}, std {_text(self.std)}"
            )
        self.low_u, self.high_u = self._inner(self.low, 1), self._inner(self.high, -1)

    @classmethod
    def of(cls, interface: Interface, low: Numbers, high: Numbers) -> ActionSpace:
        """Scaled by the statistics that the model was trained with; UserError if these are not of such actions."""
        if len(low) != interface.action_dim:
            raise UserError(
                f"the environment's actions have {len(low)} numbers, the model was trained on {interface.action_dim}"
            )
        space = cls(low, high, mean=interface.action_mean, std=interface.action_std)
        if ((space.mean < space.low) | (space.mean > space.high)).any():
            raise UserError(
                f"the actions that the model was trained on have the mean {_text(space.mean)}, outside the bounds of "
                f"the environment's, {_text(space.low)} and {_text(space.high)}: they mean something else; give a "
                "model of this environment's actions"
            )
        return space

    @property
    def dim(self) -> int:
        """Size of one step's action."""
        return len(self.low)

    def to(self, device: torch.device) -> ActionSpace:
        """A copy on a device."""
        moved = copy(self)
        for name, values in vars(self).items():
            setattr(moved, name, values.to(device, copy=True))
        return moved

    def clip(self, u: Float[Tensor, "... a"]) -> Float[Tensor, "... a"]:
        """The nearest point within the bounds, on the scale of the search."""
        return u.clamp(self.low_u, self.high_u)

    def raw(self, u: Float[Tensor, "... a"]) -> Float[Tensor, "... a"]:
        """The environment's action, within its bounds to the last bit."""
        return (self.mean + self.std * u).clamp(self.low, self.high)

    def scaled(self, raw: Float[Tensor, "... a"]) -> Float[Tensor, "... a"]:
        """The inverse of `raw`."""
        return (raw - self.mean) / self.std

    def _inner(self, bound: Tensor, inwards: int) -> Tensor:
        """The bound on the scale of the search, moved inwards until it is not beyond the bound when scaled back.

        The two roundings there and back may lead beyond it by a few of the last digit's steps, where the clamp of `raw`
        would cut the gradient off: a coordinate at its bound would stay there, wherever the cost pulls it.
        """
        step = torch.finfo(torch.float32).eps * torch.maximum(bound.abs(), self.mean.abs())
        moved, width = self.scaled(bound), inwards
        while (beyond := inwards * (self.mean + self.std * moved) < inwards * bound).any():
            moved = torch.where(beyond, self.scaled(bound + width * step), moved)
            width *= 2
        return moved


def _numbers(values: Numbers) -> Tensor:
    found = torch.as_tensor(values, dtype=torch.float32)
    if found.dim() != 1 or len(found) == 0 or torch.isnan(found).any():
        raise UserError(f"bounds and scale of actions are one number for each dimension, got {_text(values)}")
    return found


def _text(values: Numbers) -> str:
    return str(torch.as_tensor(values).tolist())

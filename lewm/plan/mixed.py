"""Candidates rolled out in bfloat16, where the hardware computes in it."""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lewm.clip import Interface
from lewm.plan.protocol import Model


class Mixed:
    """A model whose rollouts are computed under autocast to bfloat16; what goes in and comes out is as it was.

    Of a torch module it rolls out a copy that holds the weights of its linear layers and convolutions in bfloat16:
    autocast would cast frozen weights anew in every product. The numbers are the same.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.low = model, lowered(model)

    @property
    def interface(self) -> Interface:
        return self.model.interface

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]:
        """The model's own."""
        return self.model.encode(pixels)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b t-1 k a"], future: Float[Tensor, "b s n k a"]
    ) -> Float[Tensor, "b s n d"]:
        """The model's, with products in bfloat16."""
        with torch.autocast(z.device.type, torch.bfloat16):
            return self.low.rollout(z, past, future).to(z.dtype)


def lowered(model: Model) -> Model:
    """A copy of a torch module for use under autocast alone; anything else as it is."""
    if not isinstance(model, nn.Module):
        return model
    copy = deepcopy(model)
    for part in copy.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            part.bfloat16()
    return copy

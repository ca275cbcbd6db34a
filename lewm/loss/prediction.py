"""Mean squared error between predicted and actual next embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def prediction_loss(predicted: Float[Tensor, "b t d"], target: Float[Tensor, "b t d"]) -> Float[Tensor, ""]:
    """mean((z_hat - z)^2) over clips, frames and dimensions, in float32; gradients reach the target too [0].

    [0] LeWorldModel, arXiv 2603.19312, section 3: no stop-gradient, no teacher.
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    return (predicted.to(wide) - target.to(wide)).square().mean()

"""The BatchNorm MLP between encoder and embedding, and after the predictor."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lewm.distributed import BatchNormOverRanks


class Projector(nn.Module):
    """Linear, BatchNorm over all clips, frames and ranks, GELU, Linear.

    BatchNorm, not LayerNorm: the ViT ends in a LayerNorm, which would keep SIGReg from shaping the distribution.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), BatchNormOverRanks(hidden), nn.GELU(), nn.Linear(hidden, out)
        )

    def forward(self, x: Float[Tensor, "b t width"]) -> Float[Tensor, "b t d"]:
        return rearrange(self.net(rearrange(x, "b t e -> (b t) e")), "(b t) d -> b t d", t=x.shape[1])

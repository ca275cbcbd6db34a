"""Blocks of actions to one vector per frame."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class ActionEncoder(nn.Module):
    """A block's actions, concatenated: pointwise linear to `narrow`, then Linear, SiLU, Linear."""

    def __init__(self, block_size: int, *, narrow: int, hidden: int, out: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv1d(block_size, narrow, kernel_size=1)
        self.embed = nn.Sequential(nn.Linear(narrow, hidden), nn.SiLU(), nn.Linear(hidden, out))

    def forward(self, actions: Float[Tensor, "b t k a"]) -> Float[Tensor, "b t d"]:
        x = self.patch_embed(rearrange(actions, "b t k a -> b (k a) t"))
        # Of a transposed tensor torch makes one small product a row, with a copy of frozen weights for each.
        return self.embed(rearrange(x, "b e t -> b t e").contiguous())

"""The causal transformer that predicts next embeddings, conditioned on actions by AdaLN-zero.

Its parameter names are those of the published checkpoints (see `lewm.interop`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """LayerNorm, causal multi-head attention, output projection, dropout."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, width), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b t (three h e) -> three b h t e", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        return self.to_out(rearrange(y, "b h t e -> b t (h e)"))


class MLP(nn.Module):
    """LayerNorm, Linear, GELU, Linear, with dropout after the GELU and after the output."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        return self.net(x)


class Block(nn.Module):
    """x += gate1 * attn(m1(LN(x))), x += gate2 * mlp(m2(LN(x))), with m(y) = y * (1 + scale) + shift [0].

    Shifts, scales and gates are a linear function of SiLU(action) that starts at zero: a block starts as identity.

    [0] W. Peebles and S. Xie, Scalable Diffusion Models with Transformers, 2023 (AdaLN-zero).
    """

    def __init__(self, width: int, heads: int, head_dim: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads, head_dim, dropout)
        self.mlp = MLP(width, mlp, dropout)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        nn.init.zeros_(self.adaLN_modulation[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.adaLN_modulation[1].bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b t e"], c: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class Transformer(nn.Module):
    """Blocks and a final LayerNorm; linear maps before and after where the embedding's width is not its own."""

    def __init__(
        self, embed_dim: int, width: int, depth: int, heads: int, head_dim: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        same = embed_dim == width
        self.input_proj = nn.Identity() if same else nn.Linear(embed_dim, width)
        self.cond_proj = nn.Identity() if same else nn.Linear(embed_dim, width)
        self.output_proj = nn.Identity() if same else nn.Linear(width, embed_dim)
        self.layers = nn.ModuleList(Block(width, heads, head_dim, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b t d"], c: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x, c = self.input_proj(x), self.cond_proj(c)
        for layer in self.layers:
            x = layer(x, c)
        return self.output_proj(self.norm(x))


class Predictor(nn.Module):
    """Next embedding after each of at most `history` frames, each seeing itself and those before it."""

    def __init__(
        self,
        embed_dim: int,
        *,
        history: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.history = history
        self.pos_embedding = nn.Parameter(torch.randn(1, history, embed_dim))
        self.transformer = Transformer(embed_dim, width, depth, heads, head_dim, mlp, dropout)

    def forward(self, z: Float[Tensor, "b t d"], c: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        assert z.shape[1] <= self.history, "the window is the caller's to cut"
        return self.transformer(z + self.pos_embedding[:, : z.shape[1]], c)

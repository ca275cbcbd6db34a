"""The causal transformer that predicts next embeddings, conditioned on actions by AdaLN-zero.

Its parameter names are those of the published checkpoints (see `lewm.interop`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Held = tuple[Tensor, Tensor]  # keys and values of earlier frames (b, h, t, e)


@dataclass
class Memory:
    """What later steps of a rollout need not compute again.

    Args:
        modulations: of each layer, for every block of the rollout (b, t, 6 e).
        held: keys and values of each layer for the frames of the first window, as far as it has been filled.
    """

    modulations: list[Float[Tensor, "b t m"]]
    held: list[Held] = field(default_factory=list)

    @property
    def num(self) -> int:
        """Frames held."""
        return self.held[0][0].shape[2] if self.held else 0


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

    def extend(self, x: Float[Tensor, "b t e"], held: Held | None, last: bool) -> tuple[Float[Tensor, "b _ e"], Held]:
        """The same for frames after those that are `held`, or only for the last of them; all keys and values so far.

        The first frame of a window sees itself alone, so what it attends to is its own value and it has no query.
        """
        x = self.norm(x)
        inner = self.to_qkv.out_features // 3
        queries, rest = self.to_qkv.weight.split((inner, 2 * inner))
        k, v = rearrange(F.linear(x, rest), "b t (two h e) -> two b h t e", two=2, h=self.heads)
        if held is not None:
            k, v = torch.cat([held[0], k], dim=2), torch.cat([held[1], v], dim=2)
        frames = k.shape[2]
        later = min(1 if last else x.shape[1], frames - 1)  # frames asked for that see others
        y = v[:, :, :1]
        if later > 0:
            # Contiguous: of a part torch makes one small product a row, with a copy of frozen weights for each.
            q = rearrange(F.linear(x[:, -later:].contiguous(), queries), "b t (h e) -> b h t e", h=self.heads)
            seen = torch.ones(later, frames, dtype=torch.bool, device=x.device).tril(frames - later)
            seeing = attend(q, k, v, seen if later > 1 else None)
            y = seeing if last or held is not None else torch.cat([y, seeing], dim=2)
        return self.to_out(rearrange(y, "b h t e -> b t (h e)").contiguous()), (k, v)


def attend(
    q: Float[Tensor, "b h i e"], k: Float[Tensor, "b h j e"], v: Float[Tensor, "b h j e"], seen: Tensor | None
) -> Float[Tensor, "b h i e"]:
    """Scaled dot-product attention; on a CPU bfloat16 goes through float32, whose kernel is faster for few frames."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=seen).to(q.dtype)


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

    def extend(
        self, x: Float[Tensor, "b t e"], modulation: Float[Tensor, "b t m"], held: Held | None, last: bool
    ) -> tuple[Float[Tensor, "b _ e"], Held]:
        """See `Attention.extend`; `modulation` is what `adaLN_modulation` makes of these frames' actions."""
        shift1, scale1 = modulation.chunk(6, dim=-1)[:2]
        y, held = self.attn.extend(self.norm1(x) * (1 + scale1) + shift1, held, last)
        if last:
            x, modulation = x[:, -1:], modulation[:, -1:]
        _, _, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * y
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), held


class Transformer(nn.Module):
    """Blocks and a final LayerNorm; linear maps before and after where the embedding's width is not its own."""

    extends_compiled = False  # whether `extend` is compiled, by torch.compile, where there are no gradients

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

    def modulations(self, c: Float[Tensor, "b t d"]) -> list[Float[Tensor, "b t m"]]:
        """What the actions do to each layer."""
        c = self.cond_proj(c)
        return [layer.adaLN_modulation(c) for layer in self.layers]  # type: ignore[operator]

    def extend(
        self, x: Float[Tensor, "b t d"], modulations: list[Float[Tensor, "b t m"]], held: list[Held]
    ) -> tuple[Float[Tensor, "b 1 d"], list[Held]]:
        """Output at the last of the frames `x`, which follow those held in each layer (none: an empty list)."""
        # torch keeps eight graphs: none is spent on a single candidate, nor on gradients.
        if not self.extends_compiled or len(x) == 1 or torch.is_grad_enabled():
            return self._extend(x, modulations, held)
        # Each is for one offset into memory; parts of a tensor have another one at every step.
        return _compiled_extend()(self, x, [m.clone(memory_format=torch.contiguous_format) for m in modulations], held)

    def _extend(
        self, x: Float[Tensor, "b t d"], modulations: list[Float[Tensor, "b t m"]], held: list[Held]
    ) -> tuple[Float[Tensor, "b 1 d"], list[Held]]:
        x, kept = self.input_proj(x), []
        for i, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            last = i == len(self.layers) - 1
            x, one = layer.extend(x, modulation, held[i] if held else None, last)  # type: ignore[operator]
            kept.append(one)
        return self.output_proj(self.norm(x)), kept


@cache
def _compiled_extend() -> Callable[..., tuple[Tensor, list[Held]]]:
    return torch.compile(Transformer._extend, dynamic=True)  # for any number of candidates


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

    def remember(self, c: Float[Tensor, "b t d"]) -> Memory:
        """What `latest` needs of all actions of a rollout."""
        return Memory(self.transformer.modulations(c))

    def latest(self, z: Float[Tensor, "b t d"], memory: Memory) -> Float[Tensor, "b 1 d"]:
        """Next embedding after the last of all frames so far: what `forward` gives at the end of their window.

        While the window fills, frames keep their positions, and each layer its keys and values; once it slides,
        every position is another frame's and the window is computed anew. Of the last layer only the last frame is.
        """
        t = z.shape[1]
        slides = t > self.history
        low = t - self.history if slides else memory.num
        first = 0 if slides else low
        x = z[:, low:] + self.pos_embedding[:, first : first + t - low]
        modulations = [m[:, low:t] for m in memory.modulations]
        y, held = self.transformer.extend(x, modulations, [] if slides else memory.held)
        if not slides:
            memory.held = held
        return y

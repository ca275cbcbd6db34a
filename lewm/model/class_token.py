"""Of a ViT's last block only what reaches the class token, where only that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from einops import rearrange
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class LastBlock(Block):
    """A block that puts out its first token alone: keys and values of all tokens, everything else of that one.

    The same number to rounding; of the block's products five sixths are left out, of a whole ViT of depth 12 7 %. With
    `whole` it is timm's block.
    """

    whole: bool
    attn: Attention

    def forward(
        self, x: Float[Tensor, "b n e"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "b _ e"]:
        if self.whole or attn_mask is not None or is_causal:
            return super().forward(x, attn_mask, is_causal)
        first = x[:, :1] + self.drop_path1(self.ls1(_attend(self.attn, self.norm1(x))))
        return first + self.drop_path2(self.ls2(self.mlp(self.norm2(first))))


def _attend(attn: Attention, x: Float[Tensor, "b n e"]) -> Float[Tensor, "b 1 e"]:
    """timm's attention, for the first token's query."""
    sizes, bias = (attn.attn_dim, 2 * attn.attn_dim), attn.qkv.bias
    wq, wkv = attn.qkv.weight.split(sizes)
    bq, bkv = (None, None) if bias is None else bias.split(sizes)
    # A matrix: of more dimensions torch's order of summation depends on whether gradients are asked for.
    q = rearrange(F.linear(x[:, 0], wq, bq), "b (h e) -> b h 1 e", h=attn.num_heads)
    k, v = rearrange(F.linear(x, wkv, bkv), "b n (two h e) -> two b h n e", two=2, h=attn.num_heads)
    q, k = attn.q_norm(q), attn.k_norm(k)
    weights = attn.attn_drop((q * attn.scale @ k.transpose(-2, -1)).softmax(dim=-1))
    y = attn.norm(rearrange(weights @ v, "b h n e -> b n (h e)"))
    return attn.proj_drop(attn.proj(y))


def shorten_last_block(backbone: nn.Module) -> None:
    """Let a plain ViT that is pooled by its class token end in a `LastBlock`; weights and names stay."""
    if type(backbone) is not VisionTransformer or backbone.global_pool != "token" or backbone.cls_token is None:
        return
    assert isinstance(backbone.blocks, nn.Sequential)
    last = backbone.blocks[-1]
    if type(last) is Block and type(last.attn) is Attention and last.attn.gate is None:
        last.__class__ = LastBlock
        last.whole = False  # type: ignore[assignment]


def set_whole(module: nn.Module, whole: bool) -> None:
    """Have the last blocks inside put out every token, or only the first."""
    for block in _last_blocks(module):
        block.whole = whole


@contextmanager
def all_tokens(module: nn.Module) -> Iterator[None]:
    """Have the last blocks inside put out every token for a while."""
    before = [(block, block.whole) for block in _last_blocks(module)]
    set_whole(module, True)
    try:
        yield
    finally:
        for block, whole in before:
            block.whole = whole


def _last_blocks(module: nn.Module) -> list[LastBlock]:
    return [part for part in module.modules() if isinstance(part, LastBlock)]

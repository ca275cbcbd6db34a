"""Where the encoder's class token looks: its attention over each frame's patches, from hooks on queries and keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from timm.layers.attention import Attention
from torch import Tensor, nn

from lewm.errors import UserError
from lewm.model.world_model import WorldModel

Heard = dict[str, Tensor]  # "query" and "key" of one layer


@torch.no_grad()
def class_attention(model: WorldModel, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t l m i j"]:
    """Attention weights of the class token for every patch, of each layer l and head m, on the grid of patches (i, j).

    softmax over all tokens of q k^T / sqrt(e), as the encoder computes it; over the patches alone the weights sum to
    less than 1, for the class token looks at itself too. A `LastBlock`, which puts out its first token alone, asks the
    same query. UserError for a backbone without a class token or with another attention than timm's plain one.
    """
    backbone = model.encoder.backbone
    layers = [module for module in backbone.modules() if isinstance(module, Attention)]
    if getattr(backbone, "cls_token", None) is None or not layers:
        raise UserError(f"{type(backbone).__name__} has no class token whose attention could be shown")
    with ExitStack() as hooks:
        heard = [hooks.enter_context(listening(layer)) for layer in layers]
        model.encode_cls(pixels)
    grid = backbone.patch_embed.grid_size
    found = [weights(layer, one)[..., -grid[0] * grid[1] :] for layer, one in zip(layers, heard, strict=True)]
    return rearrange(torch.stack(found), "l (b t) m (i j) -> b t l m i j", b=len(pixels), i=grid[0])


@contextmanager
def listening(layer: Attention) -> Iterator[Heard]:
    """A dict that fills with a layer's queries and keys, (b, heads, tokens, e), during one pass."""
    heard: Heard = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            heard[name] = output[:, :, :1] if name == "query" else output

        return hook

    handles = [layer.q_norm.register_forward_hook(keep("query")), layer.k_norm.register_forward_hook(keep("key"))]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def weights(layer: Attention, heard: Heard) -> Float[Tensor, "b m n"]:
    """The first token's weights over all tokens."""
    return (heard["query"].float() * layer.scale @ heard["key"].float().transpose(-2, -1)).softmax(dim=-1)[:, :, 0]

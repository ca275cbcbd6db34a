"""Frames to one vector each: any timm backbone."""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers.config import use_fused_attn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lewm.distributed import batch_norms_over_ranks
from lewm.errors import UserError
from lewm.model.class_token import shorten_last_block
from lewm.model.patches import project_patches


class Encoder(nn.Module):
    """A timm backbone without its classifier; for a ViT the [CLS] token after the final LayerNorm [0].

    `positions` is how a ViT's learned position embeddings start: "learned" as timm draws them, "sincos" with the
    two-dimensional sine-cosine table. Published weights fix the ViT's LayerNorm eps to 1e-12.

    [0] LeWorldModel, arXiv 2603.19312, section 3.
    """

    def __init__(
        self, name: str, *, image_size: int, channels: int = 3, positions: str = "learned", **kwargs: Any
    ) -> None:
        super().__init__()
        self.backbone = _create(name, image_size, channels, kwargs)
        self.width = _output_width(self.backbone, image_size, channels)
        batch_norms_over_ranks(self.backbone)
        if isinstance(self.backbone, VisionTransformer):
            project_patches(self.backbone)
            shorten_last_block(self.backbone)
            for module in self.backbone.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = 1e-12
        if positions == "sincos":
            _start_from_sincos(self.backbone)
        elif positions != "learned":
            raise UserError(f"model.positions is {positions!r}; one of learned, sincos")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width"]:
        _fuse_attention(self.backbone, not (x.device.type == "cpu" and torch.is_grad_enabled()))
        return self.backbone(x)


def _fuse_attention(backbone: nn.Module, fused: bool) -> None:
    """Let timm's attention use the fused kernel or not; on a CPU its backward pass takes half of a training step."""
    for module in backbone.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = fused and use_fused_attn()  # type: ignore[assignment]


def _create(name: str, image_size: int, channels: int, kwargs: dict[str, Any]) -> Any:
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise UserError(
            f"model.encoder: timm has no backbone {name!r}" + (f"; near: {', '.join(near)}" if near else "")
        )
    patch = _patch_size(name, kwargs)
    if patch and image_size % patch:
        raise UserError(
            f"image size {image_size} is not a multiple of the patch size {patch} of {name}; "
            f"set model.encoder_kwargs.patch_size to a divisor of {image_size}, or data.image_size"
        )
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels, **kwargs}
    try:
        return timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise UserError(f"model.encoder_kwargs: {name} refuses them: {error}") from error
    return timm.create_model(name, **options)  # a backbone that takes frames of any size


def _patch_size(name: str, kwargs: dict[str, Any]) -> int | None:
    if "patch_size" in kwargs:
        return int(kwargs["patch_size"])
    if name.startswith(("vit_", "deit")) and "_patch" in name:
        return int(name.split("_patch")[1].split("_")[0])
    return None


def _output_width(backbone: Any, image_size: int, channels: int) -> int:
    """Asked by a frame of zeros: some backbones put out more than their `num_features`."""
    training = backbone.training
    with torch.no_grad():
        width = backbone.eval()(torch.zeros(1, channels, image_size, image_size)).shape[-1]
    backbone.train(training)
    return width


def _start_from_sincos(backbone: Any) -> None:
    """Overwrite a ViT's position embeddings with sines and cosines of row and column."""
    if getattr(backbone, "pos_embed", None) is None:
        raise UserError("model.positions: sincos needs a ViT with position embeddings")
    rows, columns = backbone.patch_embed.grid_size
    width = backbone.pos_embed.shape[-1]
    if width % 4:
        raise UserError(f"model.positions: sincos needs a width that is a multiple of 4, got {width}")
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(10_000.0) / (width // 4)))
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()  # (tokens, 2)
    angles = (grid[..., None] * frequencies).flatten(1)  # (tokens, width / 2)
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    with torch.no_grad():
        backbone.pos_embed.zero_()
        backbone.pos_embed[:, -rows * columns :] = table

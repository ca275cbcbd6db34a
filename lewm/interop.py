"""Published weights: names of a LeWM state dict, as its authors publish it, to ours.

Their encoder is Hugging Face's ViTModel, whose names changed with version 5 of that library; both spellings are read.
Projectors, action encoder and predictor bear the same names in both places. Their files hold no statistics of actions.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from lewm.errors import UserError

ENCODER = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.(weight|bias)": r"patch_embed.proj.\1",
    r"layernorm\.(weight|bias)": r"norm.\1",
    r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.(weight|bias)": r"blocks.\1.norm1.\2",
    r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.(weight|bias)": r"blocks.\1.norm2.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)": r"blocks.\1.attn.proj.\2",
    r"layers\.(\d+)\.attention\.o_proj\.(weight|bias)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)": r"blocks.\1.mlp.fc1.\2",
    r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)": r"blocks.\1.mlp.fc2.\2",
    r"layers\.(\d+)\.mlp\.(fc[12])\.(weight|bias)": r"blocks.\1.mlp.\2.\3",
}
QKV = re.compile(
    r"(?:encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)|layers\.(\d+)\.attention\.([qkv])_proj)"
    r"\.(weight|bias)"
)
DROPPED = ("embeddings.mask_token", "pooler.")  # of no use to the embedding


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under the names of `WorldModel`; UserError naming what has no counterpart."""
    ours: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if not name.startswith("encoder."):
            ours[name] = tensor
            continue
        key = name.removeprefix("encoder.")
        if match := QKV.fullmatch(key):
            layer, letter = match[1] or match[3], (match[2] or match[4])[0]
            parts.setdefault((layer, match[5]), {})[letter] = tensor
        elif not key.startswith(DROPPED):
            ours["encoder.backbone." + _rename(key)] = tensor
    for (layer, kind), qkv in parts.items():
        ours[f"encoder.backbone.blocks.{layer}.attn.qkv.{kind}"] = torch.cat([qkv[letter] for letter in "qkv"])
    return ours


def _rename(key: str) -> str:
    for pattern, ours in ENCODER.items():
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    raise UserError(f"no place for the published weight encoder.{key}; is it a LeWM checkpoint with a plain ViT?")

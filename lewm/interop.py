"""Published weights: names of a LeWM state dict, as its authors publish it, to ours and back.

Their encoder is Hugging Face's ViTModel, whose names changed with version 5 of that library; both spellings are read
and written. Projectors, action encoder and predictor bear the same names in both places. Their files hold no
statistics of actions.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from lewm.errors import UserError

BACKBONE = "encoder.backbone."
PLAIN = {  # theirs, in both spellings: ours
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
LAYERS = {4: "encoder.layer.", 5: "layers."}  # how a layer's names begin, by version of Hugging Face's library
PARTS = {  # of a layer: theirs in version 4, in version 5, ours
    ("layernorm_before", "layernorm_before"): "norm1",
    ("layernorm_after", "layernorm_after"): "norm2",
    ("attention.output.dense", "attention.o_proj"): "attn.proj",
    ("intermediate.dense", "mlp.fc1"): "mlp.fc1",
    ("output.dense", "mlp.fc2"): "mlp.fc2",
}
QKV = {  # in this order in our one matrix
    4: ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    5: ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
}
DROPPED = ("embeddings.mask_token", "pooler.")  # of no use to the embedding
IN_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)")
IN_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
FROM_THEIRS = {name: ours for names, ours in PARTS.items() for name in names}
PLACE = {name: place for names in QKV.values() for place, name in enumerate(names)}


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under the names of `WorldModel`; UserError naming what has no counterpart."""
    ours: dict[str, Tensor] = {}
    qkv: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        if not name.startswith("encoder."):
            ours[name] = tensor
            continue
        key = name.removeprefix("encoder.")
        if key.startswith(DROPPED):
            continue
        match = IN_LAYER.fullmatch(key)
        if match and match[2] in PLACE:
            qkv.setdefault(f"blocks.{match[1]}.attn.qkv.{match[3]}", {})[PLACE[match[2]]] = tensor
        elif match and match[2] in FROM_THEIRS:
            ours[f"{BACKBONE}blocks.{match[1]}.{FROM_THEIRS[match[2]]}.{match[3]}"] = tensor
        elif key in PLAIN:
            ours[BACKBONE + PLAIN[key]] = tensor
        else:
            raise UserError(f"no place for the published weight {name}; is it a LeWM checkpoint with a plain ViT?")
    for name, parts in qkv.items():
        if len(parts) < 3:
            raise UserError(f"of query, key and value of {name} only {len(parts)} are there; the weights are not whole")
        ours[BACKBONE + name] = torch.cat([parts[place] for place in range(3)])
    return ours


def to_published(state: dict[str, Tensor], version: int = 5) -> dict[str, Tensor]:
    """The inverse: a `WorldModel`'s state dict as Hugging Face's library of that version (4 or 5) spells it.

    UserError where the encoder has weights that a plain ViT has not.
    """
    theirs: dict[str, Tensor] = {}
    plain = {ours: name for name, ours in PLAIN.items()}
    parts = {ours: names[version - 4] for names, ours in PARTS.items()}
    for name, tensor in state.items():
        key = name.removeprefix(BACKBONE)
        match = IN_BLOCK.fullmatch(key)
        if key == name:
            theirs[name] = tensor
        elif key in plain:
            theirs[f"encoder.{plain[key]}"] = tensor
        elif match and match[2] == "attn.qkv":
            for part, chunk in zip(QKV[version], tensor.chunk(3), strict=True):
                theirs[f"encoder.{LAYERS[version]}{match[1]}.{part}.{match[3]}"] = chunk.clone()
        elif match and match[2] in parts:
            theirs[f"encoder.{LAYERS[version]}{match[1]}.{parts[match[2]]}.{match[3]}"] = tensor
        else:
            raise UserError(f"the published code has no place for {name}: only models with a plain ViT go there")
    return theirs

"""The architecture of a LeWM with a plain ViT, read from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lewm.errors import UserError

HEAD_WIDTH = 64  # of the paper's encoder (192 / 3) and predictor (1024 / 16), and of every ViT of usual size
BACKBONE = "encoder.backbone."
LAYER = "predictor.transformer.layers."


@dataclass(frozen=True)
class Architecture:
    """What shapes say: arguments of `WorldModel`, and the sizes that an interface must agree with."""

    config: dict[str, Any]
    image_size: int  # of the square grid of patches that positions were learned for
    channels: int
    history: int
    block_size: int  # frameskip x size of one action


def architecture(
    state: Mapping[str, Tensor], *, encoder_heads: int | None = None, predictor_heads: int | None = None
) -> Architecture:
    """Read sizes from a state dict under the names of `WorldModel`.

    No shape tells the number of attention heads: where it is None, heads are 64 wide, as the paper's are. UserError
    where the weights are no LeWM with a plain ViT, or heads of 64 do not fit.
    """
    try:
        return _architecture(state, encoder_heads, predictor_heads)
    except (KeyError, IndexError) as error:
        raise UserError(f"the weights are not those of a LeWM with a plain ViT: {error} is missing") from error


def _architecture(state: Mapping[str, Tensor], encoder_heads: int | None, predictor_heads: int | None) -> Architecture:
    for part in ("projector", "pred_proj"):
        if f"{part}.net.1.running_mean" not in state:
            raise UserError(f"the weights have no BatchNorm in {part}; only a LeWM with BatchNorm there is taken")
    patches = _shape(state, f"{BACKBONE}patch_embed.proj.weight", 4)  # (width, channels, patch, patch)
    positions = _shape(state, f"{BACKBONE}pos_embed", 3)  # (1, 1 + patches, width)
    projector = _shape(state, "projector.net.0.weight", 2)
    action = _shape(state, "action_encoder.patch_embed.weight", 3)  # (narrow, block, 1)
    history, embed_dim = _shape(state, "predictor.pos_embedding", 3)[1:]
    side = round((positions[1] - 1) ** 0.5)
    if side**2 != positions[1] - 1 or patches[2] != patches[3]:
        raise UserError(f"{positions[1]} positions and patches of {patches[2:]} are not of a ViT of square frames")
    width, inner = patches[0], _shape(state, f"{LAYER}0.attn.to_qkv.weight", 2)[0] // 3
    hidden = _shape(state, f"{BACKBONE}blocks.0.mlp.fc1.weight", 2)[0]
    heads = _heads("predictor_heads", inner, predictor_heads)
    config = {
        "encoder": "vit_tiny_patch16_224",
        "encoder_kwargs": {
            "patch_size": patches[2],
            "embed_dim": width,
            "depth": _depth(state, f"{BACKBONE}blocks."),
            "num_heads": _heads("encoder_heads", width, encoder_heads),
            "mlp_ratio": hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width,
        },
        "embed_dim": embed_dim,
        "projector_hidden": projector[0],
        "action_narrow": action[0],
        "action_hidden": _shape(state, "action_encoder.embed.0.weight", 2)[0],
        "predictor_width": _shape(state, "predictor.transformer.norm.weight", 1)[0],
        "predictor_depth": _depth(state, LAYER),
        "predictor_heads": heads,
        "predictor_head_dim": inner // heads,
        "predictor_mlp": _shape(state, f"{LAYER}0.mlp.net.1.weight", 2)[0],
    }
    return Architecture(config, side * patches[2], patches[1], history, action[1])


def _shape(state: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    shape = tuple(state[name].shape)
    if len(shape) != dims or 0 in shape:
        raise UserError(f"the weights are not those of a LeWM with a plain ViT: {name} has the shape {shape}")
    return shape


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Layers counted, not the largest number, which a name may make as large as it likes."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})


def _heads(name: str, width: int, given: int | None) -> int:
    heads = given or width // HEAD_WIDTH
    if given is None and width % HEAD_WIDTH:
        raise UserError(f"no shape tells how many attention heads share {width} numbers; say it with --{name}")
    if heads < 1 or width % heads:
        raise UserError(f"--{name} is {heads}, but {width} numbers are not shared evenly by so many")
    return heads

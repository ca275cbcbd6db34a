"""What the class token attends to: the encoder's own weights, on the right patch, by the short last block too."""

import pytest
import torch
from torch import nn

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.class_attention import class_attention
from lewm.model.class_token import LastBlock, set_whole
from lewm.model.world_model import WorldModel

SIDE, PATCH = 24, 8  # three by three patches


def tiny(depth=2, **changes):
    torch.manual_seed(0)
    interface = Interface(image_size=SIDE, frameskip=2, history=2, action_mean=(0.0,), action_std=(1.0,))
    kwargs = {"patch_size": PATCH, "depth": depth, "embed_dim": 24, "num_heads": 2}
    small = {"embed_dim": 8, "projector_hidden": 16, "action_hidden": 16, "predictor_depth": 1, "predictor_heads": 1}
    how = {"encoder_kwargs": kwargs, **small, "predictor_head_dim": 8, "predictor_mlp": 16} | changes
    return WorldModel(interface, **how).eval().requires_grad_(False)


def clips(b=2, t=3):
    return torch.randint(0, 256, (b, t, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def with_unequal_weights(model):
    for block in model.encoder.backbone.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.5)
    return model


@pytest.mark.parametrize("whole", [False, True])
def test_weights_are_those_that_the_encoder_computes(whole):
    model, pixels, full = with_unequal_weights(tiny()), clips(), []
    set_whole(model.encoder, True)
    drops = [block.attn.attn_drop for block in model.encoder.backbone.blocks]
    handles = [drop.register_forward_hook(lambda module, inputs, output: full.append(output)) for drop in drops]
    model.encode(pixels)  # on a CPU, with gradients allowed, attention is not fused: all weights pass by
    [handle.remove() for handle in handles]
    set_whole(model.encoder, whole)
    found = class_attention(model, pixels)
    assert found.shape == (2, 3, 2, 2, 3, 3)  # clips, frames, layers, heads, grid
    for layer, weights in enumerate(full):  # (frames, heads, 1 + 9, 1 + 9)
        expected = weights[:, :, 0, 1:].reshape(2, 3, 2, 3, 3)
        assert torch.allclose(found[:, :, layer], expected, atol=1e-6)
    assert found.flatten(-2).std(dim=-1).min() > 1e-4


def test_a_planted_query_finds_the_planted_patch():
    model = tiny(depth=1)
    backbone = model.encoder.backbone
    assert isinstance(backbone.blocks[-1], LastBlock)
    attn, width = backbone.blocks[0].attn, 24
    for weights in (backbone.pos_embed, backbone.patch_embed.proj.weight, backbone.patch_embed.proj.bias):
        nn.init.zeros_(weights)
    backbone.patch_embed.proj.weight[5] = 1.0  # how bright a patch is, in channel 5
    nn.init.zeros_(attn.qkv.weight)
    nn.init.zeros_(attn.qkv.bias)
    attn.qkv.bias[:width] = 1.0  # a query for whatever has a large key
    attn.qkv.weight[width : 2 * width, 5] = 1.0
    pixels = torch.zeros(1, 1, SIDE, SIDE, 3, dtype=torch.uint8)
    pixels[..., 2 * PATCH :, :PATCH, :] = 255  # the third row of patches, the first column
    found = class_attention(model, pixels)[0, 0, 0]
    for head in found:
        assert head[2, 0] > 0.95 and head.sum() <= 1 + 1e-6


def test_no_hook_stays_behind():
    model = tiny()
    class_attention(model, clips())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_backbone_without_a_class_token_is_refused():
    model = tiny(encoder="resnet10t", encoder_kwargs={})
    with pytest.raises(UserError, match="no class token"):
        class_attention(model, clips())

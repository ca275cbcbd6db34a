"""The short last block against the whole one."""

import pytest
import torch

from lewm.model.class_token import LastBlock, all_tokens, set_whole
from lewm.model.encoder import Encoder

SMALL = {"patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}


@pytest.mark.parametrize("more", [{}, {"qk_norm": True, "init_values": 0.1}, {"qkv_bias": False}, {"reg_tokens": 2}])
def test_output_and_gradients_are_those_of_the_whole_block(more):
    torch.manual_seed(0)
    encoder = Encoder("vit_tiny_patch16_224", image_size=16, **SMALL, **more).double()
    assert isinstance(encoder.backbone.blocks[-1], LastBlock)
    x, found = torch.randn(5, 3, 16, 16, dtype=torch.float64), []
    for whole in (False, True):
        set_whole(encoder, whole)
        encoder.zero_grad()
        y = encoder(x)
        y.square().sum().backward()
        found.append([y, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for short, whole in zip(*found, strict=True):
        torch.testing.assert_close(short, whole, rtol=1e-9, atol=1e-12)


def test_the_last_block_puts_out_one_token_unless_all_are_asked_for():
    encoder, seen = Encoder("vit_tiny_patch16_224", image_size=16, **SMALL), []
    encoder.backbone.blocks[-1].register_forward_hook(lambda block, given, out: seen.append(out.shape[1]))
    encoder(torch.randn(2, 3, 16, 16))
    with all_tokens(encoder):
        encoder(torch.randn(2, 3, 16, 16))
    encoder(torch.randn(2, 3, 16, 16))
    assert seen == [1, 5, 1]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {**SMALL, "class_token": False, "global_pool": "avg"}),
        ("resnet18", {}),
    ],
)
def test_backbones_that_pool_otherwise_stay_as_they_are(name, more):
    encoder = Encoder(name, image_size=16, **more)
    assert not any(isinstance(module, LastBlock) for module in encoder.modules())

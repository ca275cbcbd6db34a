"""Layers by their names: what is taken of each kind of output, in one pass, with nothing left behind."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.layers import Tokens
from lewm.model.world_model import WorldModel

VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
SWIN: dict[str, Any] = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
BLOCK = "encoder.backbone.blocks.1"


def build(interface: Interface, encoder: str = "vit_tiny_patch16_224", side: int = 16, **kwargs: Any) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(replace(interface, image_size=side), **{**TINY, "encoder": encoder, "encoder_kwargs": kwargs})
    return model.eval()


@pytest.fixture
def vit(interface) -> WorldModel:
    return build(interface, **VIT)


def frames(b: int = 2, t: int = 3, side: int = 16) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, t, side, side, 3), dtype=torch.uint8, generator=g)


def seen(model: WorldModel, pixels: Tensor) -> Tensor:
    """What the encoder is given: (b t, c, h, w)."""
    return model.normalise_pixels(pixels).flatten(0, 1)


def after_blocks(model: WorldModel, pixels: Tensor, blocks: int) -> Tensor:
    """A ViT's tokens after so many blocks, by hand: (b, t, tokens, width)."""
    vit = model.encoder.backbone
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(seen(model, pixels)))))
    for block in vit.blocks[:blocks]:
        x = block(x)
    return x.unflatten(0, pixels.shape[:2])


def hooks(model: WorldModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_blocks_equal_a_forward_by_hand(vit):
    pixels = frames()
    found = vit.encode_layers(pixels, (BLOCK, f"{BLOCK}:mean", "encoder.backbone.blocks.0.attn"))
    tokens = after_blocks(vit, pixels, 2)
    torch.testing.assert_close(found[BLOCK], tokens[..., 0, :])
    torch.testing.assert_close(found[f"{BLOCK}:mean"], tokens[..., 1:, :].mean(2))
    block = vit.encoder.backbone.blocks[0]
    attended = block.attn(block.norm1(after_blocks(vit, pixels, 0).flatten(0, 1))).unflatten(0, (2, 3))
    torch.testing.assert_close(found["encoder.backbone.blocks.0.attn"], attended[..., 0, :])


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


@torch.no_grad()
def test_a_layer_is_not_touched_by_what_writes_into_its_output_later(vit):
    pixels, name = frames(), "encoder.backbone.blocks.0.attn"
    before = vit.encode_layers(pixels, (name,))[name]
    vit.encoder.backbone.blocks[0].ls1 = Doubling()
    assert torch.equal(vit.encode_layers(pixels, (name,))[name], before)


def test_the_default_is_embedding_and_cls(vit):
    pixels = frames()
    found = vit.encode_layers(pixels)
    assert list(found) == ["embedding", "cls"]
    assert torch.equal(found["embedding"], vit.encode(pixels))
    assert torch.equal(found["cls"], vit.encode_cls(pixels))
    named = vit.encode_layers(pixels, ("projector", "encoder", "projector.net.3"))
    assert all(torch.equal(named[name], found["embedding"]) for name in ("projector", "projector.net.3"))
    assert torch.equal(named["encoder"], found["cls"])


def test_layers_come_in_the_order_asked(vit):
    asked = ("cls", f"{BLOCK}:mean", "embedding", "encoder.backbone.blocks.0", BLOCK)
    assert tuple(vit.encode_layers(frames(), asked)) == asked


@pytest.mark.parametrize(
    ("layers", "projected"),
    [(("cls",), 0), (("cls", f"{BLOCK}:mean", BLOCK), 0), (("embedding", "cls", BLOCK, "projector.net.1"), 1)],
)
def test_one_pass_serves_all_layers_and_the_projector_runs_only_if_asked(vit, layers, projected):
    encoded, through = count_calls(vit.encoder.backbone), count_calls(vit.projector)
    vit.encode_layers(frames(), layers)
    assert (len(encoded), len(through)) == (1, projected)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "global_pool": "avg", "reg_tokens": 2},
    ],
)
def test_a_vit_without_class_token_gives_the_mean_over_patches(interface, kwargs):
    model, pixels = build(interface, **VIT, **kwargs), frames()
    found = model.encode_layers(pixels, (BLOCK, f"{BLOCK}:mean"))
    expected = after_blocks(model, pixels, 2)[..., kwargs.get("reg_tokens", 0) :, :].mean(2)
    torch.testing.assert_close(found[BLOCK], expected)
    torch.testing.assert_close(found[f"{BLOCK}:mean"], expected)


def test_the_patch_embedding_has_no_class_token_to_take_or_leave_out(vit):
    pixels, name = frames(), "encoder.backbone.patch_embed"
    found = vit.encode_layers(pixels, (name, f"{name}:mean", f"{name}.proj"))
    expected = vit.encoder.backbone.patch_embed(seen(vit, pixels)).mean(1).unflatten(0, (2, 3))
    for values in found.values():
        torch.testing.assert_close(values, expected)


def test_a_convolutional_backbone_gives_the_mean_over_places(interface):
    model, pixels = build(interface, "resnet10t", side=32), frames(side=32)
    # bn1's output is overwritten by the ReLU after it
    asked = ("encoder.backbone.bn1", "encoder.backbone.layer2", "encoder.backbone.layer2:mean", "cls")
    found = model.encode_layers(pixels, asked)
    net = model.encoder.backbone
    x = net.bn1(net.conv1(seen(model, pixels)))
    torch.testing.assert_close(found[asked[0]], x.mean((2, 3)).unflatten(0, (2, 3)))
    x = net.layer2(net.layer1(net.maxpool(net.act1(x)))).mean((2, 3)).unflatten(0, (2, 3))
    torch.testing.assert_close(found[asked[1]], x)
    torch.testing.assert_close(found[asked[2]], x)
    assert found["cls"].shape == (2, 3, 512)


@pytest.mark.parametrize("side", [32, 64])  # at 32 the first map is 8 x 8 x 8: only timm tells where its channels are
def test_a_channel_last_backbone_gives_the_mean_over_places(interface, side):
    model = build(interface, "swin_tiny_patch4_window7_224", side=side, **SWIN)
    pixels = frames(side=side)
    found = model.encode_layers(pixels, ("encoder.backbone.layers.0", "encoder.backbone.patch_embed.proj"))
    embed = model.encoder.backbone.patch_embed
    x = model.encoder.backbone.layers[0](embed(seen(model, pixels))).mean((1, 2))
    torch.testing.assert_close(found["encoder.backbone.layers.0"], x.unflatten(0, (2, 3)))
    x = embed.proj(seen(model, pixels)).mean((2, 3))
    torch.testing.assert_close(found["encoder.backbone.patch_embed.proj"], x.unflatten(0, (2, 3)))


def test_tokens_that_are_alone_are_taken_whatever_the_prefix():
    x = torch.randn(4, 1, 5)
    for mean in (True, False):
        assert torch.equal(Tokens(prefix=1, has_class=True, patches=9).pool(x, mean), x[:, 0])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blocks.1", f"no layer 'blocks.1' to probe; one of {BLOCK}, embedding, cls, encoder.backbone.blocks.0"),
        ("encoder.backbone.block.1", f"no layer .* one of .*{BLOCK}, .*embedding, cls, "),
        ("embeding", "no layer 'embeding' to probe; one of embedding, cls, "),
        (f"{BLOCK}:max", "no layer"),
        ("", "no layer ''"),
        ("predictor.transformer", "'predictor.transformer' is no part of encoder or projector; one of embedding, cls"),
        ("encoders", "no layer 'encoders'"),
        ("cls:mean", "'cls' is one vector a frame, 'cls:mean' has no patches"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_forward_pass(vit, layer, message):
    calls = count_calls(vit.encoder)
    with pytest.raises(UserError, match=message) as refused:
        vit.encode_layers(frames(), ("cls", layer))
    assert not calls
    assert "\n" not in str(refused.value)


class Twice(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.inner = block

    def forward(self, x: Tensor, **_) -> Tensor:
        return self.inner(self.inner(x))


class Answer(nn.Module):
    """Stands where a LayerScale stood: another output, which the block does not see."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = answer  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        return x


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.1.inner", "is run several times when frames are encoded; one of embedding, cls"),
        ("head_drop.unused", "is never run by itself"),
        ("blocks.0.attn.q_norm", r"puts out \(6, 2, 5, 12\) for 6 frames, not a vector, tokens or a map for each"),
        ("blocks.0.ls1.inner", "puts out a tuple, not one tensor of floats"),
        ("blocks.0.ls2.inner", r"puts out \(24, 30\) for 6 frames"),
        ("blocks.2.ls1.inner", "puts out a Tensor, not one tensor of floats"),
        ("fc_norm:mean", r"puts out \(6, 24\) for 6 frames, not tokens or a map, to average"),
    ],
)
def test_outputs_that_are_no_vector_a_frame_are_refused_and_hooks_removed(vit, name, message):
    backbone, pixels = vit.encoder.backbone, frames()
    backbone.blocks[1] = Twice(backbone.blocks[1])
    backbone.head_drop.unused = nn.Identity()
    backbone.blocks[0].ls1 = Answer(lambda x: (x, x))
    backbone.blocks[0].ls2 = Answer(lambda x: x.flatten().reshape(24, -1))
    backbone.blocks[2].ls1 = Answer(lambda x: x.argmax(-1))
    with pytest.raises(UserError, match=message) as refused:
        vit.encode_layers(pixels, ("cls", f"encoder.backbone.{name}"))
    assert f"'encoder.backbone.{name}'" in str(refused.value)
    assert hooks(vit) == 0
    assert list(vit.encode_layers(pixels, ("cls",))) == ["cls"]


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind_and_training_mode_works_too(vit, training):
    vit.train(training)
    before = {name: module.training for name, module in vit.named_modules()}
    weights = {name: value.clone() for name, value in vit.state_dict().items() if "projector" not in name}
    found = vit.encode_layers(frames(), (BLOCK, "cls"))
    assert found[BLOCK].requires_grad
    assert hooks(vit) == 0
    assert before == {name: module.training for name, module in vit.named_modules()}
    assert all(torch.equal(value, vit.state_dict()[name]) for name, value in weights.items())


def test_hooks_are_removed_when_the_forward_pass_fails(vit):
    with pytest.raises(UserError, match="8 x 8"):
        vit.encode_layers(frames(side=8), (BLOCK, "embedding"))
    assert hooks(vit) == 0


def test_a_long_list_of_blocks_is_shortened(interface):
    model = build(interface, **{**VIT, "depth": 8})
    with pytest.raises(UserError) as refused:
        model.encode_layers(frames(), ("nothing",))
    first, last = "encoder.backbone.blocks.0, encoder.backbone.blocks.1", "encoder.backbone.blocks.7"
    assert f"embedding, cls, {first}, ..., {last}, or another module" in str(refused.value)

from typing import Any

import pytest
import torch
from torch import nn

from lewm.model.encoder import Encoder
from lewm.model.patches import PatchProjection, project_patches


def backbone(**settings: Any) -> Any:
    embedding: Any = nn.Module()
    embedding.proj = nn.Conv2d(3, 48, 8, **{"stride": 8, **settings})
    whole: Any = nn.Module()
    whole.patch_embed = embedding
    return whole


def made(num_frames, side):
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(num_frames, 3, side, side, generator=generator)
    return frames, torch.randn(num_frames, 48, side // 8, side // 8, generator=generator)


def gradient(module, frames, upstream):
    module.zero_grad()
    (module(frames) * upstream).sum().backward()
    return module.weight.grad.double().clone()


def test_the_product_gives_what_the_convolution_gives():
    model = backbone()
    conv = model.patch_embed.proj
    project_patches(model)
    proj = model.patch_embed.proj
    assert type(proj) is PatchProjection
    assert proj.weight is conv.weight and proj.bias is conv.bias
    assert list(proj.state_dict()) == list(conv.state_dict())
    frames, upstream = made(3, 32)
    torch.testing.assert_close(proj(frames), conv(frames), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(proj, frames, upstream), gradient(conv, frames, upstream), rtol=1e-4, atol=1e-5)


def test_the_weight_gradient_of_many_patches_is_summed_to_float32s_rounding():
    model = backbone()
    project_patches(model)
    frames, upstream = made(1024, 32)
    found = gradient(model.patch_embed.proj, frames, upstream)
    wanted = gradient(model.patch_embed.proj.double(), frames.double(), upstream.double())
    assert (found - wanted).norm() < 1e-6 * wanted.norm()  # the convolution is 2.2e-6 off


@pytest.mark.parametrize("settings", [{"stride": 4}, {"padding": 1}, {"dilation": 2}, {"groups": 3}])
def test_other_convolutions_stay(settings):
    model = backbone(**settings)
    conv = model.patch_embed.proj
    project_patches(model)
    assert model.patch_embed.proj is conv


def test_a_vit_has_its_patches_projected_with_the_names_and_the_start_of_timm():
    import timm

    kwargs: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3}
    torch.manual_seed(0)
    encoder: Any = Encoder("vit_tiny_patch16_224", image_size=32, **kwargs)
    torch.manual_seed(0)
    plain = timm.create_model("vit_tiny_patch16_224", img_size=32, pretrained=False, num_classes=0, **kwargs)
    assert isinstance(encoder.backbone.patch_embed.proj, PatchProjection)
    wanted = plain.state_dict()
    assert list(encoder.backbone.state_dict()) == list(wanted)
    for name, weight in encoder.backbone.state_dict().items():
        assert torch.equal(weight, wanted[name]), name

"""Sizes are read from shapes, and what no shape tells is asked for."""

import pytest
import torch

from lewm.architecture import architecture
from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.world_model import WorldModel

INTERFACE = Interface(image_size=32, frameskip=3, history=2, action_mean=(0.0, 1.0), action_std=(1.0, 2.0))


def model(**changes) -> WorldModel:
    sizes = {
        "encoder_kwargs": {"patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "mlp_ratio": 100 / 64},
        "embed_dim": 12,
        "projector_hidden": 20,
        "action_narrow": 7,
        "action_hidden": 9,
        "predictor_width": 16,
        "predictor_depth": 3,
        "predictor_heads": 2,
        "predictor_head_dim": 64,
        "predictor_mlp": 11,
    }
    return WorldModel(INTERFACE, **(sizes | changes))


def test_every_size_is_found_again():
    made = model()
    found = architecture(made.state_dict())
    assert {name: made.config[name] for name in found.config if name != "encoder_kwargs"} == {
        name: value for name, value in found.config.items() if name != "encoder_kwargs"
    }
    again = WorldModel(INTERFACE, **found.config)
    again.load_state_dict(made.state_dict())
    pixels, actions = torch.randint(0, 256, (1, 3, 32, 32, 3), dtype=torch.uint8), torch.randn(1, 2, 3, 2)
    assert torch.equal(again.eval().surprise(pixels, actions), made.eval().surprise(pixels, actions))
    assert (found.image_size, found.channels, found.history, found.block_size) == (32, 3, 2, 6)


@pytest.mark.parametrize("hidden", [*range(150, 260), 768])
def test_the_hidden_width_of_the_encoder_survives_its_ratio(hidden):
    state = dict(model().state_dict())
    state["encoder.backbone.blocks.0.mlp.fc1.weight"] = torch.zeros(hidden, 192)
    state["encoder.backbone.patch_embed.proj.weight"] = torch.zeros(192, 3, 8, 8)
    kwargs = architecture(state).config["encoder_kwargs"]
    assert int(kwargs["embed_dim"] * kwargs["mlp_ratio"]) == hidden
    assert kwargs["num_heads"] == 3


def test_heads_are_asked_for_where_64_does_not_fit():
    state = model(predictor_heads=4, predictor_head_dim=24).state_dict()
    with pytest.raises(UserError, match=r"96 numbers; say it with --predictor_heads"):
        architecture(state)
    config = architecture(state, predictor_heads=4).config
    assert (config["predictor_heads"], config["predictor_head_dim"]) == (4, 24)
    with pytest.raises(UserError, match=r"--predictor_heads is 7, but 96 numbers"):
        architecture(state, predictor_heads=7)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("projector.net.1.running_mean", None, "no BatchNorm in projector"),
        ("predictor.pos_embedding", None, "pos_embedding' is missing"),
        ("predictor.pos_embedding", torch.zeros(3), r"has the shape \(3,\)"),
        ("encoder.backbone.pos_embed", torch.zeros(1, 8, 64), "not of a ViT of square frames"),
        ("encoder.backbone.patch_embed.proj.weight", torch.zeros(0, 3, 8, 8), "has the shape"),
    ],
)
def test_what_is_no_lewm_is_named(name, tensor, said):
    state = {key: x for key, x in model().state_dict().items() if key != name}
    if tensor is not None:
        state[name] = tensor
    with pytest.raises(UserError, match=said):
        architecture(state)


def test_a_name_alone_makes_no_model_deep():
    state = model().state_dict() | {"encoder.backbone.blocks.999999999.norm1.weight": torch.zeros(64)}
    assert architecture(state).config["encoder_kwargs"]["depth"] == 3

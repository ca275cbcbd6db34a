"""Published weights give the published numbers."""

import json
from pathlib import Path

import pytest
import torch
from published import golden, old_spelling, same
from safetensors.torch import load_file

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.interop import from_published, to_published
from lewm.model.world_model import WorldModel

GOLDEN = Path(__file__).parent / "golden"


def published(name: str) -> tuple[WorldModel, dict, dict]:
    """A model with the golden file's weights, its weights, and its inputs and outputs."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    about = json.loads((GOLDEN / f"{name}.json").read_text())
    sizes = about["sizes"]
    interface = Interface(
        image_size=sizes["image_size"],
        frameskip=sizes["frameskip"],
        history=sizes["history"],
        action_mean=tuple(about["action_mean"]),
        action_std=tuple(about["action_std"]),
    )
    model = WorldModel(
        interface,
        encoder_kwargs={
            "patch_size": sizes["patch_size"],
            "embed_dim": sizes["encoder_width"],
            "depth": sizes["encoder_depth"],
            "num_heads": sizes["encoder_heads"],
            "mlp_ratio": sizes["encoder_mlp"] / sizes["encoder_width"],
        },
        embed_dim=sizes["embed_dim"],
        projector_hidden=sizes["projector_hidden"],
        action_narrow=sizes["action_narrow"],
        action_hidden=sizes["action_mlp_scale"] * sizes["embed_dim"],
        predictor_width=sizes["predictor_width"],
        predictor_depth=sizes["predictor_depth"],
        predictor_heads=sizes["predictor_heads"],
        predictor_head_dim=sizes["predictor_head_dim"],
        predictor_mlp=sizes["predictor_mlp"],
    )
    weights = {k: v for k, v in tensors.items() if not k.startswith("io.")}
    model.load_state_dict(from_published(weights))
    return model.eval(), weights, {k[3:]: v for k, v in tensors.items() if k.startswith("io.")}


@pytest.mark.parametrize("name", ["lewm_swm_0.1.1", "lewm_swm_0.1.1_wide"])
def test_embeddings_predictions_and_rollouts_equal_the_published_codes(name):
    model, _, io = published(name)
    with torch.no_grad():
        z = model.encode(io["pixels"])
        found = {
            "pixels_fed": model.normalise_pixels(io["pixels"]),
            "emb": z,
            "act_emb": model.encode_actions(io["actions"]),
            "pred": model.predict(io["emb"][:, :3], io["actions"][:, :3]),
            "rollout_3": model.rollout(z[:, :3], io["past"], io["future"]),
            "rollout_1": model.rollout(z[:, :1], io["past"][:, :0], io["future"]),
        }
    for key, value in found.items():
        torch.testing.assert_close(value, io[key], rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_the_spelling_of_hugging_faces_version_4_is_read_too():
    _, new, _ = published("lewm_swm_0.1.1")
    old = old_spelling(new)
    a, b = from_published(new), from_published(old)
    assert old.keys() != new.keys()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_weight_without_counterpart_is_named():
    with pytest.raises(UserError, match=r"encoder\.gate\.weight"):
        from_published({"encoder.gate.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["lewm_swm_0.1.1", "lewm_swm_0.1.1_wide"])
def test_weights_go_back_bit_for_bit_in_both_spellings(name):
    new, _ = golden(name)
    for theirs, version in ((new, 5), (old_spelling(new), 4)):
        assert same(to_published(from_published(theirs), version), theirs)


def test_an_encoder_that_is_no_plain_vit_has_no_place_there():
    with pytest.raises(UserError, match=r"no place for encoder.backbone.reg_token"):
        to_published({"encoder.backbone.reg_token": torch.zeros(1)})


def test_a_key_without_its_query_is_named():
    with pytest.raises(UserError, match="only 1 are there"):
        from_published({"encoder.layers.0.attention.k_proj.weight": torch.zeros(2, 2)})

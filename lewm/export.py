"""`lewm export`: a model as a folder of safetensors, config and card, or as stable-worldmodel's own code loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lewm import checkpoint
from lewm.card import card
from lewm.errors import UserError
from lewm.interop import to_published
from lewm.model.world_model import WorldModel
from lewm.paths import folder_atomically, written_atomically
from lewm.published import INTERFACE
from lewm.weights import CONFIG, sha256, write_json, write_model, write_sealed

Format = Literal["lewm", "stable-worldmodel"]
LEWM = "stable_worldmodel.wm.lewm."  # where stable-worldmodel 0.1.1 has its modules
BATCH_NORM = {"_target_": "torch.nn.BatchNorm1d", "_partial_": True}


def export(path: str | Path, out: str | Path, *, form: Format = "lewm", spelling: int = 5) -> Path:
    """Write a checkpoint's model as a folder, whole or not at all; returns it.

    Args:
        path: a checkpoint, a run folder (its newest), a folder of runs, or an exported folder.
        out: folder to write; it must not exist, or be empty.
        form: `lewm` for `lewm.load` and the Hub, `stable-worldmodel` for that package's `load_pretrained`.
        spelling: version of Hugging Face's transformers, 4 or 5, by whose names stable-worldmodel knows its encoder.

    Raises:
        UserError: where the checkpoint cannot be read, the folder not written, or the encoder is no plain ViT.
    """
    found = checkpoint.resolve(path)
    model = checkpoint.load(found)
    with folder_atomically(out) as folder:
        if form == "lewm":
            content = checkpoint.read(found) | {"global_step": checkpoint.steps_trained(found)}
            write(folder, model, card(model, found), content)
        else:
            write_for_stable_worldmodel(folder, model, card(model, found, form), spelling)
    return Path(out)


def write(folder: Path, model: WorldModel, text: str, content: dict[str, Any]) -> None:
    """Write `README.md`, `model.safetensors` and last `config.json`; `content` is what the checkpoint holds."""
    with written_atomically(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    imported = {name: value for name, value in content.get("lewm", {}).items() if name == "imported"}
    steps = content.get("global_step", 0)
    write_model(folder, dict(model.state_dict()), checkpoint.describe(model) | imported, steps)


def write_for_stable_worldmodel(folder: Path, model: WorldModel, text: str, spelling: int = 5) -> None:
    """Write `weights.pt`, `config.json`, `README.md`, and `lewm.json`, from which `lewm import` takes the interface."""
    state = to_published(dict(model.state_dict()), spelling)
    config = stable_worldmodel_config(model)
    with written_atomically(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    checkpoint.write(state, folder / "weights.pt")
    left = {"sha256": sha256(folder / "weights.pt"), "interface": model.interface.to_dict()}
    write_sealed(folder / INTERFACE, left)
    write_json(folder / CONFIG, config)


def stable_worldmodel_config(model: WorldModel) -> dict[str, Any]:
    """What its `load_pretrained` builds the module from (Hydra's `_target_`); UserError where it has no such module."""
    vit: Any = model.encoder.backbone
    own, i = model.config, model.interface
    embed, hidden = own["embed_dim"], own["projector_hidden"]
    if own["action_hidden"] % embed:
        raise UserError(
            f"action_hidden {own['action_hidden']} is no multiple of embed_dim {embed}: no module for it there"
        )
    if i.channels != 3:
        raise UserError(f"frames have {i.channels} channels; stable-worldmodel's encoder is built for 3")
    if own["predictor_heads"] == 1 and own["predictor_head_dim"] == (own["predictor_width"] or embed):
        raise UserError("stable-worldmodel leaves out the output projection of a single head as wide as its layer")
    mlp = {"_target_": LEWM + "module.MLP", "hidden_dim": hidden, "output_dim": embed, "norm_fn": BATCH_NORM}
    return {
        "_target_": LEWM + "LeWM",
        "encoder": {
            "_target_": "stable_pretraining.backbone.utils.vit_hf",
            "size": "tiny",  # each of its sizes is given below
            "patch_size": vit.patch_embed.patch_size[0],
            "image_size": i.image_size,
            "pretrained": False,
            "use_mask_token": False,
            "hidden_size": vit.embed_dim,
            "num_hidden_layers": len(vit.blocks),
            "num_attention_heads": vit.blocks[0].attn.num_heads,
            "intermediate_size": vit.blocks[0].mlp.fc1.out_features,
        },
        "predictor": {
            "_target_": LEWM + "module.Predictor",
            "num_frames": i.history,
            "depth": own["predictor_depth"],
            "heads": own["predictor_heads"],
            "dim_head": own["predictor_head_dim"],
            "mlp_dim": own["predictor_mlp"],
            "input_dim": embed,
            "hidden_dim": own["predictor_width"] or embed,
            "output_dim": embed,
            "dropout": own["dropout"],
        },
        "action_encoder": {
            "_target_": LEWM + "module.Embedder",
            "input_dim": i.frameskip * i.action_dim,
            "smoothed_dim": own["action_narrow"],
            "emb_dim": embed,
            "mlp_scale": own["action_hidden"] // embed,
        },
        "projector": mlp | {"input_dim": model.encoder.width},
        "pred_proj": mlp | {"input_dim": embed},
    }

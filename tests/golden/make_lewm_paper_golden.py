"""Writes what stable-worldmodel's own LeWM computes at the paper's size, for our tests to reproduce.

Run it in an environment with `pip install stable-worldmodel==0.1.1 transformers safetensors`; lewm is not needed:

    python tests/golden/make_lewm_paper_golden.py

Weights and inputs are drawn by name (drawn.py), so that of 18 million numbers only the outputs are kept. The JSON file
has the config that its `load_pretrained` builds the module from, the names and shapes of its weights, and hashes that
tell whether the same numbers were drawn.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
from drawn import ACTION_MEAN, ACTION_STD, SIDE, B, K, N, S, T, digest, drawn, drawn_inputs
from einops import rearrange, repeat
from make_lewm_golden import PIXEL_MEAN, PIXEL_STD, allow_torchvision_without_its_library, standardised
from safetensors.torch import save_file

HERE = Path(__file__).parent
NAME = "lewm_swm_0.1.1_paper"
MODULE = "stable_worldmodel.wm.lewm.module."
NORM = {"_target_": "torch.nn.BatchNorm1d", "_partial_": True}
MLP = {"_target_": MODULE + "MLP", "input_dim": 192, "output_dim": 192, "hidden_dim": 2048, "norm_fn": NORM}
CONFIG = {
    "_target_": "stable_worldmodel.wm.lewm.LeWM",
    "encoder": {
        "_target_": "stable_pretraining.backbone.utils.vit_hf",
        "size": "tiny",
        "patch_size": 14,
        "image_size": SIDE,
        "pretrained": False,
        "use_mask_token": False,
    },
    "predictor": {
        "_target_": MODULE + "Predictor",
        "num_frames": 3,
        "input_dim": 192,
        "hidden_dim": 192,
        "output_dim": 192,
        "depth": 6,
        "heads": 16,
        "mlp_dim": 2048,
        "dim_head": 64,
        "dropout": 0.1,
        "emb_dropout": 0.0,
    },
    "action_encoder": {"_target_": MODULE + "Embedder", "input_dim": K * 2, "emb_dim": 192},
    "projector": MLP,
    "pred_proj": MLP,
}


@torch.no_grad()
def main() -> None:
    allow_torchvision_without_its_library()
    from hydra.utils import instantiate

    torch.set_num_threads(1)
    model = instantiate(CONFIG).eval()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    weights = {name: drawn(name, shape) for name, shape in shapes.items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    inputs = drawn_inputs()
    pixels = standardised(torch.from_numpy(inputs["pixels"]).float() / 255, PIXEL_MEAN, PIXEL_STD)
    pixels = rearrange(pixels, "b t h w c -> b t c h w")
    blocks = torch.cat(
        [repeat(torch.from_numpy(inputs["past"]), "b t k a -> b s t k a", s=S), torch.from_numpy(inputs["future"])], 2
    )
    sequence = rearrange(standardised(blocks, ACTION_MEAN, ACTION_STD), "b s t k a -> b s t (k a)")
    context = T - 1
    emb = model.encode({"pixels": pixels})["emb"]
    rolled = model.rollout({"pixels": repeat(pixels[:, :context], "b t c h w -> b s t c h w", s=S)}, sequence)
    pred = model.predict(emb[:, :context], model.action_encoder(sequence[:, 0, :context]))
    assert rolled["predicted_emb"].shape == (B, S, context + N, 192)
    found = {"emb": emb, "pred": pred, "rollout": rolled["predicted_emb"][:, :, context:]}
    save_file({name: value.contiguous().clone() for name, value in found.items()}, HERE / f"{NAME}.safetensors")
    packages = ("stable-worldmodel", "stable-pretraining", "transformers", "torch")
    about = {
        "made_with": {package: version(package) for package in packages},
        "config": CONFIG,
        "weights": digest(weights),
        "inputs": digest(inputs),
        "shapes": shapes,
    }
    (HERE / f"{NAME}.json").write_text(json.dumps(about) + "\n")
    print(NAME, sum(value.size for value in weights.values()), "numbers in", len(weights), "tensors")


if __name__ == "__main__":
    main()

"""Writes what stable-worldmodel's own LeWM computes, at a tiny size with random weights, for our tests to reproduce.

Run it in an environment with `pip install stable-worldmodel==0.1.1 transformers safetensors`; lewm is not needed:

    python tests/golden/make_lewm_golden.py

For each variant it writes a safetensors file, weights under their published keys and inputs and outputs under
`io.*`, and a JSON file with the sizes, the versions and what each `io.*` tensor holds. `wide` has a predictor of
another width than the embedding's, so that `transformer.{input,cond,output}_proj` exist, and faint numbers before the
first LayerNorms, so that a wrong eps shows.
"""

from __future__ import annotations

import importlib.util
import json
from glob import glob
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
SEED = 20260319
B, T, S, N = 2, 4, 2, 4  # clips, frames, candidates, blocks ahead
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
ACTION_MEAN, ACTION_STD = (0.25, -0.5), (0.5, 2.0)  # exact in float32, so that raw and fed actions agree exactly

SIZES: dict[str, int] = {
    "image_size": 16,
    "patch_size": 8,
    "encoder_width": 24,
    "encoder_depth": 2,
    "encoder_heads": 3,
    "encoder_mlp": 48,
    "embed_dim": 16,
    "projector_hidden": 32,
    "frameskip": 2,
    "action_dim": 2,
    "action_narrow": 6,
    "action_mlp_scale": 2,  # hidden width / embed_dim
    "history": 3,
    "predictor_depth": 2,
    "predictor_heads": 2,
    "predictor_head_dim": 8,
    "predictor_mlp": 32,
}
VARIANTS = {
    "lewm_swm_0.1.1": {"predictor_width": 16},
    "lewm_swm_0.1.1_wide": {"predictor_width": 20, "predictor_depth": 1, "encoder_depth": 1},
}

IO = {
    "pixels": "b t h w c, uint8 frames",
    "pixels_fed": "b t c h w, (pixels / 255 - pixel_mean) / pixel_std: what the encoder was given",
    "actions": "b t k a, raw; block i leads from frame i to frame i + 1",
    "actions_fed": "b t (k a), (actions - action_mean) / action_std, step by step: what the action encoder was given",
    "emb": "b t d, projected embedding of each frame, by encode",
    "act_emb": "b t d, encoded action blocks, by encode",
    "pred": "b 3 d, predict(emb[:, :3], act_emb[:, :3]): entry i is the prediction of frame i + 1",
    "past": "b 2 k a, raw blocks between the three context frames, equal to actions[:, :2]",
    "future": "b s n k a, raw blocks of each candidate; the first follows the last context frame",
    "rollout_3": "b s n d, from context pixels[:, :3]: predicted_emb[:, :, 3:]",
    "rollout_1": "b s n d, from context pixels[:, :1] and no past: predicted_emb[:, :, 1:]",
    "action_sequence_3": "b s (2 + n) (k a), given to rollout for rollout_3",
    "action_sequence_1": "b s n (k a), given to rollout for rollout_1",
}
ROLLOUT = (
    "action_sequence = concat(past, future) along blocks, past repeated for every candidate: h - 1 + n entries for a "
    "context of h frames. rollout gives the first h entries to the h context frames (entry i follows frame i), so "
    "entry h - 1, the last of those, is the first block of future. It returns h + n embeddings: the context's own, "
    "then one for each block of future. Each prediction sees the last `history` embeddings, at positions 0, 1, 2."
)


def allow_torchvision_without_its_library() -> None:
    """Let torchvision import beside another build of torch, by declaring the operators that its library lacks."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    try:
        for folder in folders or ():
            for library in glob(f"{folder}/_C*"):
                torch.ops.load_library(library)
    except OSError:
        global declared
        declared = torch.library.Library("torchvision", "DEF")  # kept alive: it undeclares when collected
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def build(sizes: dict[str, int]) -> Any:
    """LeWM put together from the package's own parts, in eval mode."""
    from stable_pretraining.backbone.utils import vit_hf
    from stable_worldmodel.wm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor

    embed, hidden = sizes["embed_dim"], sizes["projector_hidden"]
    return LeWM(
        encoder=vit_hf(
            "tiny",
            patch_size=sizes["patch_size"],
            image_size=sizes["image_size"],
            pretrained=False,
            use_mask_token=False,
            hidden_size=sizes["encoder_width"],
            num_hidden_layers=sizes["encoder_depth"],
            num_attention_heads=sizes["encoder_heads"],
            intermediate_size=sizes["encoder_mlp"],
        ),
        predictor=Predictor(
            num_frames=sizes["history"],
            depth=sizes["predictor_depth"],
            heads=sizes["predictor_heads"],
            dim_head=sizes["predictor_head_dim"],
            mlp_dim=sizes["predictor_mlp"],
            input_dim=embed,
            hidden_dim=sizes["predictor_width"],
            output_dim=embed,
            dropout=0.1,
        ),
        action_encoder=Embedder(
            input_dim=sizes["frameskip"] * sizes["action_dim"],
            smoothed_dim=sizes["action_narrow"],
            emb_dim=embed,
            mlp_scale=sizes["action_mlp_scale"],
        ),
        projector=MLP(sizes["encoder_width"], hidden, embed, norm_fn=nn.BatchNorm1d),
        pred_proj=MLP(embed, hidden, embed, norm_fn=nn.BatchNorm1d),
    ).eval()


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator, faint: float) -> None:
    """Draw every weight and statistic so that none is neutral: gates open, norms uneven, positions large.

    What stands before the first LayerNorm of the encoder, or of a wide predictor, is multiplied by `faint`.
    """
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            value.fill_(7)  # num_batches_tracked
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + 1.5 * torch.rand(value.shape, generator=generator))
        elif name.endswith(("cls_token", "position_embeddings", "pos_embedding")):
            value.copy_(noise)
        elif value.dim() > 1:
            value.copy_(noise / value[0].numel() ** 0.5)
        else:
            one = name.endswith("weight")  # of a norm
            value.copy_(one + 0.2 * noise)
        if "embeddings." in name or "input_proj" in name:
            value.mul_(faint)


def standardised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x - mean) / std over the last axis."""
    return (x - torch.tensor(mean)) / torch.tensor(std)


@torch.no_grad()
def run(model: Any, sizes: dict[str, int], generator: torch.Generator) -> dict[str, Tensor]:
    """All `io.*` tensors."""
    side, k, a = sizes["image_size"], sizes["frameskip"], sizes["action_dim"]
    pixels = torch.randint(0, 256, (B, T, side, side, 3), generator=generator, dtype=torch.uint8)
    actions = torch.tensor(ACTION_MEAN) + torch.randn(B, T, k, a, generator=generator) * torch.tensor(ACTION_STD)
    future = torch.tensor(ACTION_MEAN) + torch.randn(B, S, N, k, a, generator=generator) * torch.tensor(ACTION_STD)
    past = actions[:, :2]

    pixels_fed = rearrange(standardised(pixels.float() / 255, PIXEL_MEAN, PIXEL_STD), "b t h w c -> b t c h w")
    fed = rearrange(standardised(actions, ACTION_MEAN, ACTION_STD), "b t k a -> b t (k a)")
    info = model.encode({"pixels": pixels_fed, "action": fed})
    history = sizes["history"]
    io = {
        "pixels": pixels,
        "pixels_fed": pixels_fed,
        "actions": actions,
        "actions_fed": fed,
        "emb": info["emb"],
        "act_emb": info["act_emb"],
        "pred": model.predict(info["emb"][:, :history], info["act_emb"][:, :history]),
        "past": past,
        "future": future,
    }
    for context in (3, 1):
        blocks = torch.cat([repeat(past[:, : context - 1], "b t k a -> b s t k a", s=S), future], dim=2)
        sequence = rearrange(standardised(blocks, ACTION_MEAN, ACTION_STD), "b s t k a -> b s t (k a)")
        frames = repeat(pixels_fed[:, :context], "b t c h w -> b s t c h w", s=S)
        embeddings = model.rollout({"pixels": frames}, sequence)["predicted_emb"]
        assert embeddings.shape[2] == context + N
        torch.testing.assert_close(embeddings[:, 0, :context], info["emb"][:, :context])
        io[f"rollout_{context}"] = embeddings[:, :, context:]
        io[f"action_sequence_{context}"] = sequence
    assert set(io) == set(IO)
    return io


def main() -> None:
    allow_torchvision_without_its_library()
    torch.set_num_threads(1)
    for name, change in VARIANTS.items():
        sizes = {**SIZES, **change}
        generator = torch.Generator().manual_seed(SEED)
        model = build(sizes)
        randomise(model, generator, faint=1.0 if name == "lewm_swm_0.1.1" else 1e-3)
        io = run(model, sizes, generator)
        weights = model.state_dict()
        tensors = {**weights, **{f"io.{key}": value for key, value in io.items()}}
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, HERE / f"{name}.safetensors")
        packages = ("stable-worldmodel", "stable-pretraining", "transformers", "torch")
        about = {
            "made_with": {package: version(package) for package in packages},
            "sizes": sizes,
            "encoder_layer_norm_eps": model.encoder.config.layer_norm_eps,
            "pixel_mean": PIXEL_MEAN,
            "pixel_std": PIXEL_STD,
            "action_mean": ACTION_MEAN,
            "action_std": ACTION_STD,
            "io": IO,
            "rollout": ROLLOUT,
        }
        (HERE / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")
        print(name, sum(value.numel() for value in weights.values()), "numbers in", len(weights), "tensors")


if __name__ == "__main__":
    main()

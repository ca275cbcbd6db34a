"""Weights that another program wrote: one file, or a folder of one, with the config that may lie beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lewm.errors import UserError
from lewm.weights import CONFIG, are_plain, read_json, read_safetensors, read_torch, sha256, unsealed

INTERFACE = "lewm.json"  # what `lewm export` writes beside weights for others: all that their config cannot say
TORCH = (".pt", ".pth", ".ckpt", ".bin")
ANCHOR = "predictor.pos_embedding"  # every LeWM has it: what stands before it is a prefix
OBJECT = (
    "{path} is a pickled object{name}, and reading it would run code; where it was made, write its weights alone: "
    'torch.save(model.state_dict(), "weights.pt")'
)
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}  # Dosovitskiy et al., 2021, and timm


@dataclass(frozen=True)
class Published:
    """Weights under their published names, and what the files beside them say."""

    path: Path
    state: dict[str, Tensor]
    sizes: dict[str, Any]  # what a config says that no shape does: heads, image size, history, dropout
    interface: dict[str, Any]  # what `lewm export` left
    left_out: list[str]  # tensors of the file that are not the model's


def read_published(source: str | Path) -> Published:
    """Read a weight file or a folder of one; UserError for what is damaged, a pickled object, or no LeWM."""
    path = _file_in(Path(source))
    state, left_out = _model_in(_tensors(path), path)
    if bad := next((name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()), None):
        raise UserError(f"{bad} in {path} is not finite; the training that made it diverged, or the file is damaged")
    config = read_json(path.with_name(CONFIG)) if path.with_name(CONFIG).is_file() else None
    left = read_json(path.with_name(INTERFACE)) if path.with_name(INTERFACE).is_file() else None
    return Published(path, state, _sizes_in(config), _interface_in(left, path), left_out)


def _file_in(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"no such file or folder: {source}; give a weight file, .pt or .safetensors, or its folder")
    found = sorted(p for p in source.iterdir() if p.suffix in (*TORCH, ".safetensors"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{source} must hold one weight file, it has: {names}; name the file itself")
    return found[0]


def _tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in TORCH:
        raise UserError(f"{path} is no weight file by its name; known are {', '.join((*TORCH, '.safetensors'))}")
    try:
        return read_torch(path)
    except Exception as error:  # whatever hostile bytes make of torch's reader
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(OBJECT.format(path=path, name=f" of {match[1]}")) from error
        if _begins_as_pickle(path):
            raise UserError(OBJECT.format(path=path, name="")) from error
        raise UserError(f"not a readable weight file: {path}; it may be damaged or of another kind") from error


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _model_in(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The model's own tensors without what wraps them: a checkpoint's other parts, a prefix, a compiled module."""
    if isinstance(content, dict) and "lewm" in content:
        raise UserError(f"{path} is a checkpoint of lewm already; use it as it is")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} holds no weights by name; write model.state_dict()")
    state = {name.replace("_orig_mod.", ""): x for name, x in content.items()}
    anchor = next((name for name in state if name.endswith(ANCHOR)), None)
    if anchor is None:
        raise UserError(
            f"no LeWM in {path}: it has no {ANCHOR}; it begins with {', '.join(list(state)[:2]) or 'nothing'}"
        )
    prefix = anchor.removesuffix(ANCHOR)
    model = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    if not are_plain(model):
        raise UserError(f"not a readable weight file: {path}; its weights are not the tensors that it holds")
    return model, [name for name in state if not name.startswith(prefix)]


def _sizes_in(config: Any) -> dict[str, Any]:
    """Sizes that no shape tells, from a config as stable-worldmodel or the authors' code writes it."""
    for inner in (config, config.get("model") if isinstance(config, dict) else None):
        if (
            isinstance(inner, dict)
            and isinstance(inner.get("encoder"), dict)
            and isinstance(inner.get("predictor"), dict)
        ):
            encoder, predictor = inner["encoder"], inner["predictor"]
            break
    else:
        return {}
    found = {
        "encoder_heads": encoder.get("num_attention_heads", VIT_HEADS.get(str(encoder.get("size")))),
        "image_size": encoder.get("image_size"),
        "predictor_heads": predictor.get("heads"),
        "history": predictor.get("num_frames"),
    }
    sizes: dict[str, Any] = {name: value for name, value in found.items() if type(value) is int and value > 0}
    dropout = predictor.get("dropout")
    return sizes | ({"dropout": float(dropout)} if type(dropout) in (int, float) and 0 <= dropout < 1 else {})


def _interface_in(content: Any, path: Path) -> dict[str, Any]:
    if content is None:
        return {}
    content = unsealed(content, path.with_name(INTERFACE))
    same = content.get("sha256") == sha256(path)  # else trained on since, and on what is not known
    return content["interface"] | ({} if same else {"fingerprint": ""})


def origin(published: Published) -> dict[str, str]:
    """Which file it was, for the checkpoint that is made of it."""
    return {"file": published.path.name, "sha256": sha256(published.path)}


def check_whole(state: dict[str, Tensor], expected: dict[str, torch.Size]) -> None:
    """UserError naming the first weight that is missing, too many, or of another shape."""
    for name, shape in expected.items():
        if name not in state:
            raise UserError(f"the weights are not whole: {name} is missing")
        if state[name].shape != shape:
            raise UserError(
                f"{name} has the shape {tuple(state[name].shape)}, a LeWM of these sizes has {tuple(shape)}"
            )
    if more := [name for name in state if name not in expected]:
        raise UserError(f"a LeWM of these sizes has no {more[0]}; the weights are of another model")

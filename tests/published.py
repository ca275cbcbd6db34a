"""Weights as others publish them: the golden ones of stable-worldmodel, and those drawn at the paper's size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
SMALL = "lewm_swm_0.1.1"
OLD = (  # version 5 of Hugging Face's library, version 4
    ("encoder.layers.", "encoder.encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
FLAGS: dict[str, Any] = {  # what the small golden file does not say
    "image_size": 16,
    "frameskip": 2,
    "history": 3,
    "action_mean": (0.25, -0.5),
    "action_std": (0.5, 2.0),
    "encoder_heads": 3,
    "predictor_heads": 2,
}


def golden(name: str = SMALL) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and `io.*` of a golden file."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    weights = {key: value for key, value in tensors.items() if not key.startswith("io.")}
    return weights, {key[3:]: value for key, value in tensors.items() if key.startswith("io.")}


def about(name: str = SMALL) -> dict[str, Any]:
    """What stands beside a golden file."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as version 4 of Hugging Face's library names them."""
    found = {}
    for name, tensor in state.items():
        if name.startswith("encoder."):
            for new, old in OLD:
                name = name.replace(new, old)
        found[name] = tensor
    return found


def flags(**changes: Any) -> list[str]:
    """`FLAGS` as words of a command line; None leaves one out."""
    words = {n: ",".join(map(str, v)) if isinstance(v, tuple) else v for n, v in (FLAGS | changes).items()}
    return [f"--{name}={value}" for name, value in words.items() if value is not None]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same names and bits."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)

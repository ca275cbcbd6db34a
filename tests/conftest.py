"""Shared fixtures: shape checks at run time, small data sets whose content shows where it came from, a tiny model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # LightningCLI uses what jsonargparse will move

# Shapes and dtypes of annotated tensors are checked in tests only.
with install_import_hook(["lewm.model", "lewm.loss", "lewm.health", "lewm.clip"], "beartype.beartype"):
    import lewm.health
    import lewm.loss.prediction
    import lewm.loss.sigreg
    import lewm.model.world_model  # noqa: F401

from lewm.clip import Interface
from lewm.model.world_model import WorldModel

TINY: dict[str, Any] = {
    "encoder_kwargs": {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    "embed_dim": 8,
    "projector_hidden": 16,
    "action_hidden": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "predictor_head_dim": 4,
    "predictor_mlp": 16,
    "dropout": 0.0,
}
TINY_FLAGS = [
    "--model.encoder_kwargs={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    *(f"--model.{name}={value}" for name, value in TINY.items() if name != "encoder_kwargs"),
    "--model.sigreg_directions=16",
    "--model.lr=1e-3",
    "--data.num_workers=0",
    "--data.global_batch=8",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def interface() -> Interface:
    return Interface(image_size=16, frameskip=2, history=3, action_mean=(0.5, -1.0), action_std=(2.0, 0.5))


@pytest.fixture
def tiny_model(interface: Interface) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(interface, **TINY)
    for block in model.predictor.transformer.layers:  # AdaLN-zero would hide the actions
        torch.nn.init.normal_(block.adaLN_modulation[1].weight, std=0.3)
    return model.eval()


def flat_columns(lengths: list[int], *, side: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a flat file. A frame's first pixel tells its row; an action is (row, row + 0.5) / 100."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    pixels = rng.integers(0, 4, (rows, side, side, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(rows) % 256
    row = np.arange(rows, dtype=np.float32)
    lens = np.array(lengths, dtype=np.int32)
    return {
        "pixels": pixels,
        "action": np.stack([row, row + 0.5], axis=1) / 100,
        "state": np.stack([np.sin(row), row], axis=1).astype(np.float64),
        "proprio/pos": row[:, None].astype(np.float64),
        "id": np.repeat(np.arange(len(lengths), dtype=np.int64) * 7919 + 10**15, lens),
        "goal": np.repeat(rng.normal(size=(len(lengths), 2)), lens, axis=0),
        "ep_len": lens,
        "ep_offset": (np.cumsum(lens) - lens).astype(np.int64),
    }


@pytest.fixture
def write_flat(tmp_path: Path) -> Callable[..., Path]:
    """Writes columns to an HDF5 file and returns its path."""

    def write(columns: dict[str, np.ndarray], name: str = "flat.h5") -> Path:
        path = tmp_path / name
        with h5py.File(path, "w", libver="latest") as file:
            for column, values in columns.items():
                file.create_dataset(column, data=values)
        return path

    return write


@pytest.fixture
def flat_file(write_flat: Callable[..., Path]) -> Path:
    """40 episodes of 1 to 30 rows."""
    return write_flat(flat_columns([1 + (7 * i) % 30 for i in range(40)]))

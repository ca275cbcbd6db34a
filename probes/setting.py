"""One evaluation: which model, on which data, and where its results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lewm import checkpoint as checkpoints
from lewm.probes import results as io
from lewm.probes.features import device_of


@dataclass(frozen=True)
class Setting:
    """One evaluation: which model, on which data, and where its results go."""

    checkpoint: Path
    out: Path
    model: Any  # a WorldModel: a seams.Model that is also a torch module
    seed: int

    @property
    def untrained(self) -> Any:
        """The same architecture with random weights, on the same device."""
        return checkpoints.untrained(self.model, self.seed).to(device_of(self.model))

    def describe(self, data: str | Path, fingerprint: str, split: str) -> dict[str, Any]:
        """What every result begins with."""
        return {
            "command": io.command_line(),
            "checkpoint": io.identify(self.checkpoint),
            "data": {"path": str(data), "fingerprint": fingerprint},
            "split": split,
            "split_seed": self.model.interface.split_seed,
            "seed": self.seed,
            "versions": io.versions(),
        }


def prepare(checkpoint: Path, folder: Path, seed: int) -> Setting:
    """Load the model onto the accelerator, where there is one."""
    return Setting(checkpoint, folder, on_device(checkpoints.load(checkpoint)), seed)


def on_device(model: Any) -> Any:
    """The model on the accelerator, where there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")

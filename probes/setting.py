"""What every evaluation begins with: a model on its device, data that fit it, and what the result says first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lewm import checkpoint as checkpoints
from lewm.clip import Interface
from lewm.datasets.schema import Source
from lewm.errors import UserError
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


def fits(interface: Interface, source: Source) -> None:
    """UserError where frames, actions or the length of episodes do not fit the model."""
    check_fits(source.frame_shape, source.action_dim, interface, source.path)
    k, longest = interface.frameskip, int(source.lengths.max())
    if longest <= k:
        raise UserError(
            f"the checkpoint's frameskip is {k}: a frame and the next it predicts are {k} rows apart, but the longest "
            f"episode of {source.path} has {longest} rows; use data recorded at the rate the model was trained on"
        )


def check_fits(frame_shape: tuple[int, ...], action_dim: int, interface: Interface, path: object) -> None:
    """UserError with both values where clips do not fit the model."""
    h, w, c = frame_shape
    side = interface.image_size
    if c != interface.channels:
        raise UserError(f"frames of {path} have {c} channels, the model takes {interface.channels}")
    if (h, w) != (side, side) and not interface.resize:
        raise UserError(
            f"frames of {path} are {h} x {w}, the model takes {side} x {side}; convert them with lewm convert "
            f"--image_size {side} (lewm surprise also takes --resize)"
        )
    if action_dim != interface.action_dim:
        raise UserError(f"actions of {path} have {action_dim} numbers, the model takes {interface.action_dim}")

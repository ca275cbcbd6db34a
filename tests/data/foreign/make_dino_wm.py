"""Writes `dino_wm`, laid out as DINO-WM's loader reads Push-T: it comes with data and a loader, and without a writer.

    pip install torch imageio av
    python tests/data/foreign/make_dino_wm.py

Actions and states are padded with zeros to the longest episode. Its `seq_lengths.pkl`, a pickle, is left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from episodes import LENGTHS, episodes

FOLDER = Path(__file__).parent / "dino_wm"


def padded(parts: list[np.ndarray]) -> torch.Tensor:
    out = np.zeros((len(parts), max(LENGTHS), parts[0].shape[1]), np.float32)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return torch.from_numpy(out)


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "obses").mkdir(parents=True)
    frames, actions, states = zip(*episodes(), strict=True)
    torch.save(padded(list(actions)), FOLDER / "rel_actions.pth")
    torch.save(padded(list(states)), FOLDER / "states.pth")
    for number, film in enumerate(frames):
        iio.imwrite(FOLDER / "obses" / f"episode_{number:03d}.mp4", film, plugin="pyav", codec="libx264", fps=10)


if __name__ == "__main__":
    main()

"""What an embedding looks like without a decoder: the frame whose own embedding is nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from lewm.datasets.schema import Source
from lewm.probes.features import device_of
from lewm.probes.frames import Frames, choose_frames, read_frames

NEIGHBOURS = 1500  # frames among which the nearest is looked for
CHUNK = 32  # of them encoded at once


@dataclass(frozen=True)
class Neighbours:
    """Frames of a part of the data with their embeddings."""

    source: Source
    among: Frames
    z: Float[np.ndarray, "m d"]

    @classmethod
    def of(cls, model: Any, source: Source, episodes: Int[np.ndarray, " e"]) -> Neighbours:
        """At most `NEIGHBOURS` frames of these episodes, evenly spread, embedded here."""
        among = choose_frames(source.lengths, episodes, NEIGHBOURS)
        pixels = read_frames(source, among)
        parts = np.split(pixels, list(range(CHUNK, len(pixels), CHUNK)))
        return cls(source, among, np.concatenate([_encode(model, part) for part in parts]))

    def frames(self, z: Float[np.ndarray, "n d"]) -> UInt8[np.ndarray, "n h w c"]:
        """The frame nearest to each embedding, by Euclidean distance."""
        at, back = np.unique(self.index(z), return_inverse=True)
        return read_frames(self.source, Frames(self.among.episode[at], self.among.row[at], len(self.among)))[back]

    def index(self, z: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
        """Which of the frames is nearest to each embedding."""
        asked, own = torch.from_numpy(np.asarray(z)).float(), torch.from_numpy(self.z).float()
        return torch.cdist(asked, own).argmin(dim=1).numpy()


@torch.no_grad()
def _encode(model: Any, pixels: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    return model.encode(torch.from_numpy(pixels)[:, None].to(device_of(model)))[:, 0].float().cpu().numpy()

"""Photometric augmentation: colours and light that change from frame to frame, so that paint predicts nothing."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from lewm.errors import UserError


class Look(NamedTuple):
    """How each frame is repainted: x' = mix @ x * gain + offset, pixels in 0..255, cut to that range."""

    mix: Float32[Tensor, "b t c c"]
    gain: Float32[Tensor, "b t"]
    offset: Float32[Tensor, "b t"]


class Photometric:
    """Repaints each frame of a clip by itself.

    What changes at random from frame to frame cannot be predicted, so the prediction loss is lowest for embeddings
    that leave it out. (Colours drawn once a clip would do the opposite: a constant is the easiest thing to predict.)

    Channels are mixed by a matrix whose rows are uniform on the simplex (Dirichlet(1, ..., 1)): every grey, black and
    white among them, stays as it is, no value leaves its range, and a pure red turns into any colour.

    What is drawn depends on (seed, step, clip, frame) alone, so it is the same on any number of ranks.

    Args:
        colour: share of frames whose channels are mixed; 0 for none.
        light: largest relative change of contrast, and of brightness in shares of 255; 0 for none.
        seed: seed of all draws.
    """

    def __init__(self, *, colour: float = 0.0, light: float = 0.0, seed: int = 0) -> None:
        for name, value in (("colour", colour), ("light", light)):
            if not 0 <= value <= 1:
                raise UserError(f"model.augment_{name} is {value}; it must be in 0..1")
        self.colour, self.light, self.seed = colour, light, seed

    def __call__(
        self, pixels: UInt8[Tensor, "b t h w c"], index: Int64[Tensor, " b"], step: int
    ) -> UInt8[Tensor, "b t h w c"]:
        """The clips as they are seen at this optimiser step; the same tensor where nothing is to be changed."""
        channels = pixels.shape[-1]
        if self.light == 0 and (self.colour == 0 or channels == 1):
            return pixels
        look = Look(*(x.to(pixels.device) for x in self.looks(index, step, pixels.shape[1], channels)))
        with torch.autocast(device_type=pixels.device.type, enabled=False):  # bfloat16 has no 256 greys
            mixed = torch.einsum("bthwc,btec->bthwe", pixels.float(), look.mix)
        seen = mixed * look.gain[..., None, None, None] + look.offset[..., None, None, None]
        return seen.round().clamp(0, 255).to(torch.uint8)

    def looks(self, index: Int64[Tensor, " b"], step: int, frames: int, channels: int) -> Look:
        """Draws for the frames of some clips, by their numbers."""
        drawn = [self._look(int(i), step, frames, channels) for i in index]
        return Look(*(torch.from_numpy(np.stack(values).astype(np.float32)) for values in zip(*drawn, strict=True)))

    def _look(self, clip: int, step: int, frames: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        key = hashlib.blake2b(f"look:{self.seed}:{step}:{clip}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(key, "big"))
        mix = rng.dirichlet(np.ones(channels), size=(frames, channels))
        mix[rng.random(frames) >= self.colour] = np.eye(channels)
        contrast, brightness = self.light * rng.uniform(-1, 1, size=(2, frames))
        # Contrast turns about mid-grey: (x - 127.5) * gain + 127.5.
        return mix, 1 + contrast, -127.5 * contrast + 255 * brightness

"""Pictures of worlds: other sizes by averaging areas, and the settings that all worlds are drawn with."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lewm.errors import UserError


def reduced(picture: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    """Each pixel is the mean of the pixels with their centres in its area; along x first, rounded both times."""
    if picture.shape[:2] == (size, size):
        return np.ascontiguousarray(picture)
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def check_settings(image_size: int, max_steps: int, render_mode: str | None, *, native: int) -> None:
    """UserError for a world's settings that make no sense; `native` is the side of the largest picture."""
    if not 8 <= image_size <= native:
        raise UserError(f"image_size is 8 to {native}, not {image_size}; 32, 56, 112 and 224 divide evenly")
    if max_steps < 1:
        raise UserError(f"max_steps {max_steps} must be at least 1")
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"unknown render_mode {render_mode!r}; only rgb_array is drawn")

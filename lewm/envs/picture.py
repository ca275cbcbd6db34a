"""Pictures of other sizes, by averaging areas."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def reduced(picture: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    """Each pixel is the mean of the pixels with their centres in its area; along x first, rounded both times."""
    if picture.shape[:2] == (size, size):
        return np.ascontiguousarray(picture)
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))

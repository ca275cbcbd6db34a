"""Frames from what tools store them as: arrays of several kinds, and PNG or JPEG files."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from lewm.datasets.pixels import PILLOW_RAISES, PNG_MAGIC, png_size
from lewm.errors import UserError

EIGHT_BIT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # modes whose conversion to RGB loses no depth
JPEG_MAGIC = b"\xff\xd8"
SMALLEST = 8  # a side; what is less is a column of small matrices


def is_frames(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape (t, ...) look like pictures, channels first or last."""
    if len(shape) != 4:
        return False
    return (shape[-1] in (1, 3) and min(shape[1:3]) >= SMALLEST) or (shape[1] in (1, 3) and min(shape[2:]) >= SMALLEST)


def as_frames(values: np.ndarray, where: str) -> np.ndarray:
    """Frames as (t, h, w, c) uint8 from what tools store: channels first or last, bytes or whole floats of 0 to 255."""
    if values.ndim == 4 and values.shape[-1] not in (1, 3) and values.shape[1] in (1, 3):
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise UserError(f"{where} are of shape {values.shape[1:]}; frames are (h, w, c) or (c, h, w), c being 1 or 3")
    if values.dtype == np.uint8:
        return values
    if values.size == 0 or values.dtype.kind not in "fiu":
        raise UserError(f"{where} are {values.dtype}; frames are bytes, or whole numbers of 0 to 255")
    low, high = values.min(), values.max()
    # Floats of 0 and 1 alone may be scaled ones, of a drawing in black and white.
    scaled = values.dtype.kind == "f" and high == 1
    if scaled or not (low >= 0 and high <= 255) or not np.array_equal(values, np.rint(values)):
        raise UserError(
            f"{where} are {values.dtype} from {low:g} to {high:g}; frames are bytes, or whole numbers of 0 to 255: "
            "scale them back before converting"
        )
    return values.astype(np.uint8)


def decode_picture(content: bytes, where: str) -> np.ndarray:
    """(h, w, 3) uint8 of a PNG or JPEG file's bytes; UserError for damage, and for more than 8 bits a channel."""
    try:
        if content[: len(PNG_MAGIC)] == PNG_MAGIC:
            png_size(content)  # asks for its checksums, which Pillow does not
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
            if image.mode not in EIGHT_BIT:
                raise UserError(f"{where} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            return np.array(image.convert("RGB"))
    except UserError:
        raise
    except (*PILLOW_RAISES, ValueError) as error:
        raise UserError(f"not a readable image: {where} ({error}); copy it again".replace("\n", " ")) from error


def decode_pictures(contents: Iterable[bytes], where: str) -> np.ndarray:
    """(t, h, w, 3) uint8 of such files, which must be of one size."""
    pictures = []
    for i, content in enumerate(contents):
        pictures.append(decode_picture(content, f"picture {i} of {where}"))
        if pictures[i].shape != pictures[0].shape:
            raise UserError(
                f"picture {i} of {where} is {pictures[i].shape}, the first {pictures[0].shape}; sizes must agree"
            )
    return np.stack(pictures)

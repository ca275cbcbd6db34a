"""Frames as bytes: the codecs of a shard, and the container that keeps every frame addressable.

Container `.lwf`: magic, then little-endian u32 T, H, W, C and codec, then u64 offsets[T + 1] from the start of the
file, then the blobs. Raw frames are not put into it but kept as `.npy`, which can be memory-mapped.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import zstandard
from PIL import Image

Codec = Literal["raw", "zstd", "zlib", "png", "jpeg"]
CODECS: tuple[Codec, ...] = ("raw", "zstd", "zlib", "png", "jpeg")
MAGIC = b"LWF1"
HEADER = struct.Struct("<4s5I")
JPEG_QUALITY = 95
MIN_RATIO = 2.0  # below it `auto` keeps frames raw


def choose_codec(frames: np.ndarray) -> Codec:
    """zstd where it at least halves these frames, else raw. (t, h, w, c)."""
    size = sum(len(encode_frame(frame, "zstd")) for frame in frames)
    return "zstd" if frames.nbytes >= MIN_RATIO * size else "raw"


def encode_frame(frame: np.ndarray, codec: Codec) -> bytes:
    """One frame as bytes."""
    if codec == "zstd":
        return _compressor.compress(np.ascontiguousarray(frame))
    if codec == "zlib":
        return zlib.compress(frame.tobytes(), 1)
    buffer = io.BytesIO()
    image = Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame)
    image.save(buffer, format=codec, **({"quality": JPEG_QUALITY} if codec == "jpeg" else {}))
    return buffer.getvalue()


def decode_frame(blob: bytes, codec: Codec, out: np.ndarray) -> None:
    """Decode into `out` (h, w, c) uint8; ValueError if the bytes are damaged or of another size."""
    if codec in ("zstd", "zlib"):
        raw = _inflate(blob, codec, out.nbytes)
        if len(raw) != out.nbytes:
            raise ValueError(f"{len(raw)} bytes for a frame of {out.nbytes}")
        out[...] = np.frombuffer(raw, dtype=np.uint8).reshape(out.shape)
        return
    try:
        image = np.asarray(Image.open(io.BytesIO(blob), formats=[codec.upper()]))
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error
    out[...] = image.reshape(out.shape)


def _inflate(blob: bytes, codec: Codec, size: int) -> bytes:
    try:
        if codec == "zlib":
            return zlib.decompressobj().decompress(blob, size + 1)
        return zstandard.ZstdDecompressor().decompress(blob, max_output_size=size)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ValueError(str(error)) from error


# With a checksum every flipped bit is found, for four bytes a frame.
_compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)


def pack(frames: np.ndarray, codec: Codec) -> bytes:
    """An episode's frames (t, h, w, c) as one `.lwf`."""
    blobs = [encode_frame(frame, codec) for frame in frames]
    start = HEADER.size + 8 * (len(blobs) + 1)
    offsets = start + np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype("<u8")
    return HEADER.pack(MAGIC, *frames.shape, CODECS.index(codec)) + offsets.tobytes() + b"".join(blobs)


class PackedFrames:
    """Random access to a `.lwf` through `read(offset, size)`; the header is checked once, at construction."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        header = read(0, HEADER.size)
        if len(header) < HEADER.size or header[:4] != MAGIC:
            raise ValueError("not a frame container")
        _, t, h, w, c, codec = HEADER.unpack(header)
        if codec >= len(CODECS):
            raise ValueError(f"unknown codec number {codec}")
        self.shape, self.codec = (t, h, w, c), CODECS[codec]
        table = read(HEADER.size, 8 * (t + 1)) if HEADER.size + 8 * (t + 1) <= size else b""
        self._offsets = np.frombuffer(table, dtype="<u8").astype(np.int64)
        if len(self._offsets) != t + 1 or (np.diff(self._offsets) < 0).any() or self._offsets[-1] != size:
            raise ValueError("the table of frames does not fit its file")

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Frames at those rows: (len(rows), h, w, c) uint8."""
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for i, row in enumerate(rows):
            low, high = int(self._offsets[row]), int(self._offsets[row + 1])
            try:
                decode_frame(self._read(low, high - low), self.codec, out[i])
            except ValueError as error:
                raise ValueError(f"frame {row}: {error}") from error
        return out

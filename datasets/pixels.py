"""Frames as bytes: the codecs of a shard, and the container that keeps every frame addressable.

Container `.lwf`: magic, then little-endian u32 T, H, W, C and codec, then u64 offsets[T + 1] from the start of the
file, then the blobs. Raw frames are not put into it but kept as `.npy`, which can be memory-mapped.
"""

from __future__ import annotations

import io
import struct
import threading
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
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of a picture with so many channels
_kept = threading.local()
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# What Pillow raises of damaged bytes, beside OSError, depends on where they are damaged.
PILLOW_RAISES = (
    OSError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    TypeError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)


def choose_codec(frames: np.ndarray) -> Codec:
    """zstd where it at least halves these frames, else raw. (t, h, w, c)."""
    size = sum(len(encode_frame(frame, "zstd")) for frame in frames)
    return "zstd" if frames.nbytes >= MIN_RATIO * size else "raw"


def encode_frame(frame: np.ndarray, codec: Codec) -> bytes:
    """One frame as bytes."""
    if codec == "zstd":
        return _compressor.compress(np.ascontiguousarray(frame))  # type: ignore[arg-type]
    if codec == "zlib":
        return zlib.compress(frame.tobytes(), 1)
    buffer = io.BytesIO()
    image = Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame)
    image.save(buffer, format=codec, **({"quality": JPEG_QUALITY} if codec == "jpeg" else {}))
    return buffer.getvalue()


def decode_frame(blob: bytes, codec: Codec, out: np.ndarray) -> None:
    """Decode into `out` (h, w, c) uint8; ValueError if the bytes are damaged or of another size.

    What a blob declares is compared with `out` before anything is allocated for it.
    """
    if codec == "raw":
        raise ValueError("raw frames are not kept in a container")
    if codec in ("zstd", "zlib"):
        raw = _inflate(blob, codec, out.nbytes)
        if len(raw) != out.nbytes:
            raise ValueError(f"{len(raw)} bytes for a frame of {out.nbytes}")
        out[...] = np.frombuffer(raw, dtype=np.uint8).reshape(out.shape)
        return
    size = png_size(blob) if codec == "png" else _jpeg_size(blob)
    if size != out.shape[:2]:
        raise ValueError(f"a picture of {size[0]} x {size[1]} for a frame of {out.shape[0]} x {out.shape[1]}")
    try:
        with Image.open(io.BytesIO(blob), formats=[codec.upper()]) as image:
            if image.size != size[::-1] or image.mode != MODES.get(out.shape[2]):
                raise ValueError(f"a picture of mode {image.mode} for a frame of {out.shape[2]} channels")
            out[...] = np.asarray(image).reshape(out.shape)
    except PILLOW_RAISES as error:
        raise ValueError(str(error)) from error


def _inflate(blob: bytes, codec: Codec, size: int) -> bytes:
    try:
        if codec == "zlib":
            stream = zlib.decompressobj()
            raw = stream.decompress(blob, size + 1)
            if not stream.eof or stream.unused_data:  # the checksum stands at the very end
                raise ValueError("the compressed frame does not end where it should")
            return raw
        declared = zstandard.get_frame_parameters(blob)
        if declared.content_size != size or not declared.has_checksum:  # else that many bytes would be allocated
            raise ValueError("the compressed frame is of another size, or has no checksum")
        return _decompressor().decompress(blob, allow_extra_data=False)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ValueError(str(error)) from error


def _decompressor() -> zstandard.ZstdDecompressor:
    """This thread's own: making one takes half as long as a frame, and none may be used by two threads at once."""
    if not hasattr(_kept, "decompressor"):
        _kept.decompressor = zstandard.ZstdDecompressor()
    return _kept.decompressor


def png_size(blob: bytes) -> tuple[int, int]:
    """Height and width; ValueError unless every chunk agrees with its checksum, which Pillow does not ask of pixels."""
    at, kinds = len(PNG_MAGIC), []
    if blob[:at] != PNG_MAGIC:
        raise ValueError("not a PNG")
    while at < len(blob):
        if len(blob) < at + 12:
            raise ValueError("the PNG is truncated")
        end = at + 8 + int.from_bytes(blob[at : at + 4], "big")
        if len(blob) < end + 4:
            raise ValueError("the PNG is truncated")
        if zlib.crc32(blob[at + 4 : end]) != int.from_bytes(blob[end : end + 4], "big"):
            raise ValueError("a chunk of the PNG differs from its checksum")
        kinds.append(blob[at + 4 : at + 8])
        at = end + 4
    if kinds[:1] != [b"IHDR"] or kinds[-1:] != [b"IEND"]:
        raise ValueError("the PNG does not begin or end as it should")
    w, h = struct.unpack_from(">II", blob, len(PNG_MAGIC) + 8)
    return h, w


def _jpeg_size(blob: bytes) -> tuple[int, int]:
    """Height and width from the frame header (ITU-T T.81, B.2.2); a JPEG has no checksum."""
    at = 2
    while at + 9 <= len(blob) and blob[at] == 0xFF:
        marker = blob[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            h, w = struct.unpack_from(">HH", blob, at + 5)
            return h, w
        at += 2 + int.from_bytes(blob[at + 2 : at + 4], "big")
    raise ValueError("the JPEG has no frame header")


# With a checksum every flipped bit is found, for four bytes a frame.
_compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)


def pack(frames: np.ndarray, codec: Codec) -> bytes:
    """An episode's frames (t, h, w, c) as one `.lwf`."""
    blobs = [encode_frame(frame, codec) for frame in frames]
    start = HEADER.size + 8 * (len(blobs) + 1)
    offsets = start + np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype("<u8")
    return HEADER.pack(MAGIC, *frames.shape, CODECS.index(codec)) + offsets.tobytes() + b"".join(blobs)


class PackedFrames:
    """Random access to a `.lwf` of `size` bytes through `read(offset, size)`; the header is checked at construction.

    ValueError where it declares other frames than `shape` (t, h, w, c), if that is given, or does not fit its size.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], size: int, *, shape: tuple[int, int, int, int] | None = None
    ) -> None:
        self._read = read
        header = read(0, HEADER.size)
        if len(header) < HEADER.size or header[:4] != MAGIC:
            raise ValueError("not a frame container")
        _, t, h, w, c, codec = HEADER.unpack(header)
        if codec >= len(CODECS):
            raise ValueError(f"unknown codec number {codec}")
        if shape is not None and shape != (t, h, w, c):
            raise ValueError(f"the container holds frames (t, h, w, c) of {(t, h, w, c)}, not {shape}")
        self.shape, self.codec = (t, h, w, c), CODECS[codec]
        start = HEADER.size + 8 * (t + 1)
        table = np.frombuffer(read(HEADER.size, 8 * (t + 1)) if start <= size else b"", dtype="<u8")
        # Compared while unsigned: differences of damaged offsets could overflow and look in order.
        if len(table) != t + 1 or table[0] != start or table[-1] != size or (table[1:] < table[:-1]).any():
            raise ValueError("the table of frames does not fit its file")
        self._offsets = table.astype(np.int64)

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

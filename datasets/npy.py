"""Arrays as `.npy` bytes, read without pickles; what a header declares is compared with what is there before use."""

from __future__ import annotations

import io
import tokenize
import warnings
from functools import lru_cache
from math import prod

import numpy as np

HEADER_BYTES = 16_384  # more is no header of plain numbers
NUMPY_RAISES = (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError, tokenize.TokenError)


def dumps(values: np.ndarray) -> bytes:
    """An array as `.npy`, format 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def loads(
    content: bytes | memoryview, *, shape: tuple[int, ...] | None = None, dtype: np.dtype | None = None
) -> np.ndarray:
    """A read-only view of the array in `content`; ValueError if it is damaged, or not of that shape and dtype."""
    own = _header(shape, dtype) if shape is not None and dtype is not None else b""
    if own and shape is not None and dtype is not None and content[: len(own)] == own:
        declared, kind, start = shape, dtype, len(own)  # as `dumps` wrote it: nothing need be parsed
    else:
        declared, kind, start = _parsed(bytes(content[:HEADER_BYTES]))
    if (shape is not None and shape != declared) or (dtype is not None and dtype != kind):
        raise ValueError(f"an array {declared} of {kind}, not {shape} of {dtype}")
    count = prod(declared)
    if count * kind.itemsize != len(content) - start:
        raise ValueError(f"{len(content) - start} bytes for an array {declared} of {kind}")
    if count == 0:
        return np.empty(declared, kind)
    return np.frombuffer(content, kind, count, start).reshape(declared)


@lru_cache(maxsize=1024)
def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The bytes that `dumps` puts before an array's numbers."""
    buffer = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def _parsed(head: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length of a header that other software wrote, or a damaged one."""
    file = io.BytesIO(head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = read(file, max_header_size=HEADER_BYTES)
    except NUMPY_RAISES as error:
        raise ValueError("the header of the array is damaged") from error
    if fortran or dtype.hasobject or dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise ValueError("no array of plain numbers or words in rows")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, dtype, file.tell()

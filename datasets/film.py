"""Frames of video files through PyAV, with their times; damage is an error and never a guess."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lewm.errors import UserError

AV_RAISES = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError)  # of damage


def require_av() -> Any:
    """PyAV; UserError where it is not installed."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise UserError("videos are read and written with PyAV: pip install 'lewm[video]'") from error
    return av


def timed_frames(path: Path, since: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
    """Second and frame (h, w, 3) uint8 of a video, from the key frame before `since` on; UserError for damage."""
    with _opened(path) as (container, stream):
        # Otherwise what is damaged is painted over with guesses. A file cut between two frames still reads as a
        # shorter video, which the number of its actions tells.
        stream.codec_context.options = {"err_detect": "explode"}
        if since > 0:
            container.seek(int(since / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise UserError(f"not a readable video: {path} (a damaged frame); copy or convert it again")
            yield (0.0 if frame.time is None else frame.time), frame.to_ndarray(format="rgb24")


def count_frames(path: Path) -> int:
    """How many frames a video says that it has; counted where it does not say. UserError for damage."""
    with _opened(path) as (_, stream):
        declared = stream.frames
    return declared or sum(1 for _ in timed_frames(path))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file and its first stream of pictures."""
    av = require_av()
    try:
        # An open file and not its name: FFmpeg reads "a:b.mp4" as an address, and "%" as a pattern.
        with path.open("rb") as file, av.open(file, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise UserError(f"no picture in {path}: it has sound only, or was cut off")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UserError(f"not a readable video: {path} (of an unknown codec); copy or convert it again")
            yield container, stream
    except UserError:
        raise
    except (av.error.FFmpegError, *AV_RAISES) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"not a readable video: {path} ({reason}); copy or convert it again") from error

"""Videos as frames and back, image sequences, and the actions that are kept beside them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageSequence

from lewm.datasets.film import require_av, timed_frames
from lewm.datasets.npy import NUMPY_RAISES
from lewm.datasets.pictures import decode_picture
from lewm.datasets.pixels import png_size
from lewm.errors import UserError
from lewm.paths import written_atomically

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif")
IMAGES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
ACTIONS = (".npy", ".csv")
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}


# Reading


def read_frames(path: str | Path) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a video file, or of a folder of images; UserError where there are none."""
    return np.stack(list(frames_of(path)))


def frames_of(path: str | Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The same frame by frame, so that a long video need not fit in memory."""
    path = Path(path)
    first = None
    for i, frame in enumerate(_opened(path)):
        first = frame.shape if first is None else first
        if frame.shape != first:
            raise UserError(
                f"frame {i} of {path} is {frame.shape[0]} x {frame.shape[1]}, the first is {first[0]} x {first[1]}; "
                "all must be of one size"
            )
        yield frame
    if first is None:
        raise UserError(f"no frames in {path}; it must be a video or a folder of {', '.join(IMAGES)} files")


def _opened(path: Path) -> Iterator[np.ndarray]:
    if path.is_dir():
        return map(_image, images_of(path))
    if not path.exists():
        raise UserError(f"no such video: {path}")
    if path.suffix.lower() not in VIDEOS:
        raise UserError(f"{path} is no video by its name; read are {', '.join(VIDEOS)} and folders of images")
    return _gif(path) if path.suffix.lower() == ".gif" else (frame for _, frame in timed_frames(path))


def _gif(path: Path) -> Iterator[np.ndarray]:
    """Writers join frames that are equal into one that lasts longer; they are taken apart where durations tell."""
    try:
        with Image.open(path, formats=["GIF"]) as image:
            lasts = [int(frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(image)]
            shortest = min(lasts)
            joined = shortest > 0 and all(duration % shortest == 0 for duration in lasts)
            for frame, duration in zip(ImageSequence.Iterator(image), lasts, strict=True):
                pixels = np.asarray(frame.convert("RGB"))
                yield from [pixels] * (duration // shortest if joined else 1)
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"not a readable video: {path} ({error}); copy or convert it again") from error


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers, 2 before 10; UserError where there are two sequences."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
    kinds = {IMAGES[path.suffix.lower()] for path in files}
    if len(kinds) > 1:
        raise UserError(f"{folder} holds PNG and JPEG images; keep those of one sequence only")
    return sorted(files, key=natural)


def natural(path: Path) -> tuple[list[str | int], str]:
    """Sorts names by the numbers in them."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _image(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".png":
            png_size(content)  # no JPEG under another name: see `is_lossless`
    except (OSError, ValueError) as error:
        raise UserError(f"not a readable image: {path} ({error}); copy it again".replace("\n", " ")) from error
    return decode_picture(content, str(path))


def is_lossless(path: Path) -> bool:
    """Whether equal frames are read back as equal: only from PNGs, for every lossy codec spreads later changes."""
    return path.is_dir() and all(image.suffix.lower() == ".png" for image in images_of(path))


# Writing


def write_video(frames: Iterable[UInt8[np.ndarray, "h w 3"]], path: str | Path, fps: float) -> None:
    """Write frames of one size as a video of the kind that the name ends with; whole or not at all."""
    path = Path(path)
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps is {fps}; it must be above 0")
    if path.suffix.lower() not in (*CONTAINERS, ".gif"):
        raise UserError(f"cannot write {path}; written are {', '.join((*CONTAINERS, '.gif'))}")
    frames = _of_one_size(frames, path)
    (_write_gif if path.suffix.lower() == ".gif" else _write_av)(frames, path, fps)


def _of_one_size(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    first = None
    for frame in frames:
        first = frame.shape if first is None else first
        if frame.shape != first:
            raise UserError(f"frames of {path} are of sizes {first} and {frame.shape}; all must be of one size")
        yield frame
    if first is None:
        raise UserError(f"no frames to write to {path}")


def _write_av(frames: Iterator[np.ndarray], path: Path, fps: float) -> None:
    av = require_av()
    first = next(frames)
    h, w = first.shape[:2]
    try:
        with (
            written_atomically(path) as temporary,
            temporary.open("wb") as file,
            av.open(file, "w", format=CONTAINERS[path.suffix.lower()]) as container,
        ):
            stream = _stream(av, container, fps)
            stream.width, stream.height = w + w % 2, h + h % 2  # yuv420p has one colour for 2 x 2 pixels
            for frame in chain([first], frames):
                even = np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place or size") from error


def _stream(av: Any, container: Any, fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1000)
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=rate)
        stream.options = {"crf": "16"}
    else:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.codec_context.qmin, stream.codec_context.qmax = 1, 4
    stream.pix_fmt = "yuv420p"
    return stream


def _write_gif(frames: Iterator[np.ndarray], path: Path, fps: float) -> None:
    images = map(Image.fromarray, frames)
    first = next(images)
    # GIF counts in 1/100 s, and browsers slow down what is faster than 2 of them.
    duration = 10 * max(2, round(100 / fps))
    with written_atomically(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=images, duration=duration, loop=0)


# Actions


def read_actions(path: str | Path) -> Float32[np.ndarray, "n a"]:
    """Actions of a .npy or .csv file, one row a step; the last row alone, which may not be a real one, may be NaN."""
    path = Path(path)
    if path.suffix.lower() not in ACTIONS:
        raise UserError(f"actions are read from {' and '.join(ACTIONS)} files, not from {path}")
    try:
        values = _npy(path) if path.suffix.lower() == ".npy" else _csv(path)
    except OSError as error:
        raise UserError(f"cannot read actions from {path}: {error.strerror or error}") from error
    with np.errstate(over="ignore"):
        actions = values.astype(np.float32)
    check_finite(actions[:-1], path)
    return actions


def actions_between(actions: Float32[np.ndarray, "n a"], num_frames: int, path: Path) -> Float32[np.ndarray, "t-1 a"]:
    """Row t leads from frame t to t + 1: the rows between the frames; one more is not used. UserError for others."""
    if len(actions) not in (num_frames - 1, num_frames):
        raise UserError(
            f"{path} has {len(actions)} actions for {num_frames} frames; it must have one for each frame, or for each "
            "but the last"
        )
    check_finite(actions[: num_frames - 1], path)
    return actions[: num_frames - 1]


def check_finite(actions: Float32[np.ndarray, "n a"], path: Path) -> None:
    """UserError naming the first row with NaN or infinity."""
    bad = ~np.isfinite(actions).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(f"action {row} of {path} is {actions[row].tolist()}; actions must be finite numbers")


def _npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (*NUMPY_RAISES, EOFError) as error:
        raise UserError(f"not a readable array of numbers: {path} ({error})".replace("\n", " ")) from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise UserError(f"{path} holds several arrays; save the actions alone, with numpy.save")
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
        raise UserError(f"actions must be numbers of shape (n, a), {path} holds {values.dtype} {values.shape}")
    values = values.reshape(len(values), -1) if values.size else values
    if values.size == 0:
        raise UserError(f"no actions in {path}")
    return values


def _csv(path: Path) -> np.ndarray:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin with a byte-order mark
            lines = [(i, line) for i, line in enumerate(csv.reader(file), 1) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not a readable table: {path} ({error})") from error
    rows = [_numbers(line) for _, line in lines]
    headed = bool(rows) and rows[0] is None
    lines, rows = lines[headed:], rows[headed:]
    if not rows:
        raise UserError(f"no actions in {path}")
    for (i, line), row in zip(lines, rows, strict=True):
        if row is None:
            raise UserError(f"line {i} of {path} has what is no number: {','.join(line)}; commas separate numbers")
        if len(row) != len(lines[0][1]):
            raise UserError(f"line {i} of {path} has {len(row)} numbers, line {lines[0][0]} has {len(lines[0][1])}")
    _refuse_numbered_columns([line for _, line in lines], headed, path)
    return np.array(rows, dtype=np.float64)


def _numbers(cells: list[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None


def _refuse_numbered_columns(lines: list[list[str]], headed: bool, path: Path) -> None:
    """Tables without names of columns are often written with their numbers, 0,1,2: taken for actions they shift all."""
    numbered = lines[0] == [str(i) for i in range(len(lines[0]))]
    if numbered and not headed and any("." in cell for line in lines[1:] for cell in line):
        raise UserError(
            f"line 1 of {path}, {','.join(lines[0])}, may be actions or numbers of columns; remove it, or write "
            f"{lines[0][0]}.0 where it is an action"
        )

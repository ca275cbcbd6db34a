"""Features of single frames: what a frozen model, or a control, makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes.seams import Model, Reader
from lewm.progress import track

BATCH = 256
ON_CPU = 32  # frames at once where activations should stay in the cache: a fifth faster than 256, the same numbers


@dataclass(frozen=True)
class Frames:
    """Chosen frames, by episode number and row, and how many there were to choose from."""

    episode: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    available: int

    def describe(self) -> dict[str, Any]:
        """Counts, and how the frames were chosen."""
        chosen, kept = len(self.row), len(np.unique(self.episode))
        every = "all frames" if chosen == self.available else f"every {self.available / chosen:.2f}th frame"
        return {"episodes": kept, "frames": chosen, "frames_available": self.available, "chosen": every}


def choose_frames(lengths: Int[np.ndarray, " e"], episodes: Int[np.ndarray, " m"], max_frames: int) -> Frames:
    """All frames of the episodes, or `max_frames` of them at even strides through the whole part."""
    if max_frames < 1:
        raise UserError(f"--max-frames is {max_frames}; it must be at least 1")
    sizes = np.asarray(lengths)[episodes]
    total = int(sizes.sum())
    kept = np.arange(total) if total <= max_frames else np.arange(max_frames) * total // max_frames
    ends = np.cumsum(sizes)
    position = np.searchsorted(ends, kept, side="right")
    return Frames(np.asarray(episodes)[position], kept - (ends - sizes)[position], total)


def read_frames(source: Source, frames: Frames) -> UInt8[np.ndarray, "n h w c"]:
    """Pixels of chosen frames; those of one episode are read together."""
    out = np.empty((len(frames.row), *source.frame_shape), dtype=np.uint8)
    for e in np.unique(frames.episode):
        at = frames.episode == e
        out[at] = source.frames(int(e), frames.row[at])
    return out


@torch.inference_mode()
def extract(
    source: Source, frames: Frames, reader: Reader, *, what: str = "embedding frames"
) -> dict[str, Float[np.ndarray, "n d"]]:
    """A reader's features of all chosen frames; every frame is read once."""
    found: dict[str, list[np.ndarray]] = {}
    for low in track(range(0, len(frames.row), BATCH), what):
        batch = Frames(frames.episode[low : low + BATCH], frames.row[low : low + BATCH], 0)
        pixels = torch.from_numpy(read_frames(source, batch))
        for name, values in reader(pixels).items():
            found.setdefault(name, []).append(values.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in found.items()}


def model_reader(model: Model, layers: tuple[str, ...], prefix: str = "") -> Reader:
    """A reader of a model's layers, each frame by itself."""
    device = device_of(model)

    def read_few(pixels: Tensor) -> dict[str, Tensor]:
        found = model.encode_layers(pixels[:, None].to(device))
        unknown = [layer for layer in layers if layer not in found]
        if unknown:
            raise UserError(f"no layer {unknown[0]!r} to probe; one of {', '.join(found)}")
        return {prefix + layer: found[layer][:, 0] for layer in layers}

    def read(pixels: Tensor) -> dict[str, Tensor]:
        found = [read_few(part) for part in pixels.split(ON_CPU if device.type == "cpu" else BATCH)]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    return read


def together(*readers: Reader) -> Reader:
    """One reader that gives what all of them give."""
    return lambda pixels: {name: values for read in readers for name, values in read(pixels).items()}


def device_of(model: Model) -> torch.device:
    """The device a model's weights are on; the CPU for one without weights."""
    parameters = getattr(model, "parameters", lambda: iter(()))
    return next((p.device for p in parameters()), torch.device("cpu"))


def require_finite(features: dict[str, Float[np.ndarray, "n d"]]) -> None:
    """UserError naming features that hold NaN or infinity, as those of a diverged model do."""
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"the features {name!r} hold NaN or infinity; this model diverged: use an earlier checkpoint"
            )

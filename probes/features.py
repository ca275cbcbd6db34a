"""Features of single frames: what a frozen model, or a control, makes of them; computed once and found again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes.cache import Cache, Stored
from lewm.probes.frames import Frames, read_frames
from lewm.probes.seams import Model, Reader
from lewm.progress import track

BATCH = 256
ON_CPU = 32  # frames at once where activations should stay in the cache: a fifth faster than 256, the same numbers


@dataclass(frozen=True)
class Table:
    """Features of frames, sorted by episode and row, each frame once."""

    frames: Frames
    features: dict[str, Float[np.ndarray, "n _"]]

    def at(self, name: str, frames: Frames, num_frames: int = 1, frameskip: int = 1) -> Float[np.ndarray, "m _"]:
        """Features of each frame, those of the `num_frames - 1` before it first, one frameskip apart."""
        steps = [self.index(frames.before(i * frameskip)) for i in reversed(range(num_frames))]
        if num_frames == 1:
            return self.features[name][steps[0]]
        return np.concatenate([self.features[name][step] for step in steps], axis=1)

    def index(self, frames: Frames) -> Int[np.ndarray, " m"]:
        """Where frames stand in the table."""
        found, missing = find(self.frames, frames)
        assert not missing.any(), "a frame was not embedded"
        return found


def find(among: Frames, frames: Frames) -> tuple[Int[np.ndarray, " m"], np.ndarray]:
    """Where frames stand among sorted ones, and which of them do not."""
    if len(among) == 0:
        return np.zeros(len(frames), dtype=np.int64), np.ones(len(frames), dtype=bool)
    wide = 1 + max(int(among.row.max()), int(frames.row.max(initial=0)))
    keys, asked = among.episode * wide + among.row, frames.episode * wide + frames.row
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return at, keys[at] != asked


def extract(source: Source, frames: Frames, readers: list[Reader], cache: Cache | None = None) -> Table:
    """Every reader's features of the frames (sorted, each once); only what the cache lacks is computed."""
    cache = cache or Cache(None, "")
    keys = {name: f"{reader.key}|{name}" for reader in readers for name in reader.names}
    stored = {name: cache.load(key) for name, key in keys.items()}
    lacking = [np.any([find(stored[name].frames, frames)[1] for name in r.names], axis=0) for r in readers]
    computed = compute(source, frames, readers, lacking)
    found: dict[str, np.ndarray] = {}
    for reader, lacks in zip(readers, lacking, strict=True):
        for name in reader.names:
            new = Stored(Frames(frames.episode[lacks], frames.row[lacks], frames.available), computed[name])
            found[name] = merged(frames, stored[name], new)
            require_finite(name, found[name])
            if lacks.any():
                cache.add(keys[name], stored[name], new)
    return Table(frames, found)


@torch.inference_mode()
def compute(
    source: Source, frames: Frames, readers: list[Reader], lacking: list[Bool[np.ndarray, " n"]]
) -> dict[str, Float[np.ndarray, "_ _"]]:
    """Features by name, of the frames that each reader lacks; every frame is read once."""
    found: dict[str, list[np.ndarray]] = {name: [] for reader in readers for name in reader.names}
    wanted = np.flatnonzero(np.any([*lacking, np.zeros(len(frames), dtype=bool)], axis=0))
    for low in track(range(0, len(wanted), BATCH), "embedding frames"):
        batch = wanted[low : low + BATCH]
        pixels = torch.from_numpy(read_frames(source, Frames(frames.episode[batch], frames.row[batch], 0)))
        for reader, lacks in zip(readers, lacking, strict=True):
            own = torch.from_numpy(lacks[batch])
            for name, values in reader(pixels[own]).items() if own.any() else ():
                found[name].append(values.float().cpu().numpy())
    return {name: np.concatenate(parts) if parts else np.zeros((0, 0)) for name, parts in found.items()}


def merged(frames: Frames, stored: Stored, new: Stored) -> Float[np.ndarray, "n d"]:
    """Features of the frames, each from what is new or from what was stored."""
    at, missing = find(new.frames, frames)
    width = (new if len(new.frames) else stored).values.shape[1]
    values = np.empty((len(frames), width), dtype=np.float32)
    if not missing.all():
        values[~missing] = new.values[at[~missing]]
    if missing.any():
        values[missing] = stored.values[find(stored.frames, frames)[0][missing]]
    return values


@dataclass(frozen=True)
class ModelReader:
    """Reads a model's layers, each frame by itself; features are named prefix + layer."""

    model: Model
    layers: tuple[str, ...]
    prefix: str = ""

    @property
    def key(self) -> str:
        """Equal for the same weights and treatment of pixels, on the same kind of device."""
        return f"model|{device_of(self.model).type}|{weights_hash(self.model)}"

    @property
    def names(self) -> tuple[str, ...]:
        """Prefix and layer."""
        return tuple(self.prefix + layer for layer in self.layers)

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        device = device_of(self.model)
        found = [
            self.model.encode_layers(part[:, None].to(device), self.layers)
            for part in pixels.split(ON_CPU if device.type == "cpu" else BATCH)
        ]
        return {self.prefix + layer: torch.cat([part[layer][:, 0] for part in found]) for layer in self.layers}


def weights_hash(model: Any) -> str:
    """Hash of all that decides a model's embeddings: weights, running statistics, and what the interface says."""
    found = hashlib.sha256(repr((getattr(model, "config", None), model.interface)).encode())
    state = model.state_dict() if hasattr(model, "state_dict") else {}
    for name, tensor in sorted(state.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def device_of(model: Model) -> torch.device:
    """The device a model's weights are on; the CPU for one without weights."""
    parameters = getattr(model, "parameters", lambda: iter(()))
    return next((p.device for p in parameters()), torch.device("cpu"))


def require_finite(name: str, values: Float[np.ndarray, "n _"]) -> None:
    """UserError naming features that hold NaN or infinity, as those of a diverged model do."""
    if not np.isfinite(values).all():
        raise UserError(f"the features {name!r} hold NaN or infinity; this model diverged: use an earlier checkpoint")

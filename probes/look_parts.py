"""What `lewm look` measures beside the decoder: how straight latent paths are, and where the class token looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.health import straightness
from lewm.model.class_attention import class_attention
from lewm.probes.controls import small_pixels
from lewm.probes.features import device_of
from lewm.probes.frames import Frames
from lewm.probes.statistics import mean_interval
from lewm.probes.targets import Quantity, values_of
from lewm.progress import track

BATCH = 32


@torch.inference_mode()
def embedded(model: Any, pixels: UInt8[np.ndarray, "w t h w c"]) -> Float[np.ndarray, "w t d"]:
    """Embeddings of every frame of some windows."""
    parts = torch.from_numpy(pixels).split(max(1, BATCH // pixels.shape[1]))
    return torch.cat([model.encode(part.to(device_of(model))).float().cpu() for part in parts]).numpy()


def straight(
    paths: dict[str, Float[np.ndarray, "w t _"]], episode: Int[np.ndarray, " w"], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Mean cosine of consecutive velocities along each kind of paths, with an interval over episodes."""
    found = {}
    for name, path in paths.items():
        if path.shape[1] < 3:
            continue
        values = straightness(torch.from_numpy(path).float()).numpy()
        interval = mean_interval(values, episode, seed=seed)
        found[name] = {"mean": float(values.mean()), "ci95": interval.bounds, "ci_method": interval.method}
    return found


def pixel_paths(pixels: UInt8[np.ndarray, "w t h w c"]) -> Float[np.ndarray, "w t p"]:
    """Frames, made small, as vectors."""
    return np.stack([small_pixels(torch.from_numpy(window)).numpy() for window in pixels])


def attention_or_why_not(
    model: Any, pixels: UInt8[np.ndarray, "n h w c"]
) -> tuple[Float[np.ndarray, "n l m i j"] | None, str | None]:
    """The class token's weights over the patches of each frame, by layer and head; or none and the reason."""
    parts = torch.from_numpy(pixels).split(BATCH)
    try:
        found = [class_attention(model, part[:, None].to(device_of(model)))[:, 0] for part in track(parts, "attention")]
    except UserError as error:
        return None, str(error)
    return torch.cat(found).float().cpu().numpy(), None


def places_of(
    source: Source, quantities: list[Quantity], frames: Frames, frameskip: int
) -> dict[str, Float[np.ndarray, "n 2"]]:
    """Where things are in each frame, as shares of its width and height, where the picture's edges are known."""
    placed = [q for q in quantities if q.image is not None]
    return {q.name: q.place(values_of(source, q, frames, frameskip)) for q in placed}


def attended(
    weights: Float[np.ndarray, "n i j"], places: Float[np.ndarray, "n 2"], episode: Int[np.ndarray, " n"], *, seed: int
) -> dict[str, Any]:
    """How much more the patches at a thing and around it are attended to than even attention would; 1: as others are.

    Of each frame in which the thing is inside the picture, the share of the weights of all patches that lies on the
    patch at its place and the eight around it, over those patches' share of all patches.
    """
    inside = np.asarray(((places >= 0) & (places < 1)).all(axis=1))
    if not inside.any():
        return {"ratio": float("nan"), "ci95": [float("nan")] * 2, "n": 0}
    near = around(places[inside], weights.shape[1:])  # type: ignore[arg-type]
    flat, own = rearrange(weights[inside], "n i j -> n (i j)"), rearrange(near, "n i j -> n (i j)")
    ratio = (flat * own).sum(axis=1) / np.maximum(flat.sum(axis=1), 1e-12) / own.mean(axis=1)
    interval = mean_interval(ratio, episode[inside], seed=seed, least=0.0)
    return {"ratio": float(ratio.mean()), "ci95": interval.bounds, "n": int(inside.sum())}


def around(places: Float[np.ndarray, "n 2"], grid: tuple[int, int]) -> Bool[np.ndarray, "n i j"]:
    """Which patches hold each place or touch the one that does."""
    column, row = np.floor(places * (grid[1], grid[0])).T
    rows = np.abs(np.arange(grid[0]) - row[:, None]) <= 1
    columns = np.abs(np.arange(grid[1]) - column[:, None]) <= 1
    return rows[:, :, None] & columns[:, None, :]

"""Several checkpoints: how well each is read on validation episodes, and which is the best there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source
from lewm.probes.cache import Cache
from lewm.probes.features import ModelReader, extract
from lewm.probes.frames import union
from lewm.probes.parts import plan
from lewm.probes.quantities import Reading, observe, read_both
from lewm.probes.results import identify
from lewm.probes.setting import on_device
from lewm.probes.statistics import mean_interval, means_by_group
from lewm.probes.surprise import check_fits
from lewm.probes.targets import Quantity
from lewm.progress import track


def choose(
    paths: list[Path], source: Source, quantities: list[Quantity], cache: Cache, *, max_frames: int, seed: int
) -> tuple[list[dict[str, Any]], Path]:
    """A row of scores on validation episodes for each checkpoint, and the best.

    The best has the smallest standardised error of the linear probes, meant over quantities and episodes. `as_good`
    are those whose paired difference to it has a 95 % interval over episodes that reaches 0.
    """
    rows: list[dict[str, Any]] = []
    errors: list[dict[int, float]] = []
    for path in track(paths, "checkpoints"):
        readings = read_on_val(path, source, quantities, cache, max_frames=max_frames, seed=seed)
        errors.append(by_episode(readings))
        rows.append(describe(path, readings, seed) | {"val_error": float(np.mean(list(errors[-1].values())))})
    best = int(np.argmin([row["val_error"] for row in rows]))
    for i, row in enumerate(rows):
        behind = mean_interval(*paired(errors[i], errors[best]), seed=seed)
        row |= {"best": i == best, "as_good": i == best or bool(behind.low <= 0), "behind_ci95": behind.bounds}
    return rows, paths[best]


def read_on_val(
    path: Path, source: Source, quantities: list[Quantity], cache: Cache, *, max_frames: int, seed: int
) -> list[dict[str, Reading]]:
    """Readings of every quantity from one checkpoint's embedding, on validation episodes."""
    model = on_device(checkpoints.load(path))
    check_fits(source.frame_shape, source.action_dim, model.interface, source.path)
    how = plan(source, "val", model.interface.split_seed, seed)
    about = {"history": model.interface.history, "frameskip": model.interface.frameskip}
    values = [observe(source, quantity, how, max_frames, **about) for quantity in quantities]
    table = extract(source, union([v.needed for v in values]), [ModelReader(model, ("embedding",))], cache)
    return [read_both(table, v, how, "embedding", seed=seed) for v in values]


def paired(errors: dict[int, float], others: dict[int, float]) -> tuple[Float[np.ndarray, " e"], Int[np.ndarray, " e"]]:
    """Differences in the episodes that both have, and their numbers."""
    both = sorted(errors.keys() & others.keys())
    return np.array([errors[e] - others[e] for e in both]), np.array(both)


def by_episode(readings: list[dict[str, Reading]]) -> dict[int, float]:
    """Standardised error of the linear probes in each episode, mean over the quantities known there."""
    found: dict[int, list[float]] = {}
    for reading in (both["linear"] for both in readings):
        squared = (reading.scale(reading.true) - reading.scale(reading.read)) ** 2
        means = means_by_group(squared.mean(axis=1), reading.episode)
        for e, mean in zip(np.unique(reading.episode), means, strict=True):
            found.setdefault(int(e), []).append(float(mean))
    return {e: float(np.mean(means)) for e, means in found.items()}


def describe(path: Path, readings: list[dict[str, Reading]], seed: int) -> dict[str, Any]:
    """A checkpoint and its scores, by quantity and probe."""
    run = checkpoints.run_folder(path)
    scores = {
        both["linear"].values.quantity.name: {probe: reading.score(seed=seed) for probe, reading in both.items()}
        for both in readings
    }
    return identify(path) | {"run": str(run) if run else "", "split": "val", "targets": scores}

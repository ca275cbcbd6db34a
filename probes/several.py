"""Several checkpoints: how well each is read on validation episodes, and which is the best there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes.cache import Cache
from lewm.probes.parts import plan
from lewm.probes.quantities import Reading
from lewm.probes.questions import Questions
from lewm.probes.results import identify
from lewm.probes.setting import fits, on_device
from lewm.probes.statistics import mean_interval, means_by_group
from lewm.probes.targets import Quantity
from lewm.progress import track

MOST = 5000  # frames of each part: what tells checkpoints apart is the number of episodes


def choose(
    paths: list[Path],
    source: Source,
    quantities: list[Quantity],
    cache: Cache,
    *,
    split: str,
    max_frames: int,
    seed: int,
) -> tuple[list[dict[str, Any]], Path]:
    """A row of scores on validation episodes for each checkpoint, and the best; of a part at most `MOST` frames.

    The best has the smallest standardised error of the linear probes, meant over quantities and episodes. `as_good`
    are those whose paired difference to it has a 95 % interval over episodes that reaches 0.
    """
    require_comparable(paths, source, quantities)
    plan(source, split, checkpoints.interface_of(paths[0]).split_seed, seed)  # refuses before anything is computed
    rows: list[dict[str, Any]] = []
    errors: list[dict[int, float]] = []
    questions: dict[tuple[int, int], Questions] = {}
    for path in track(paths, "checkpoints"):
        model = on_device(checkpoints.load(path))
        fed = (model.interface.history, model.interface.frameskip)
        if fed not in questions:
            about = {"max_frames": min(max_frames, MOST), "seed": seed}
            questions[fed] = Questions(source, quantities, model.interface, **about)
        try:
            readings = questions[fed].ask(model, ("linear", "mlp"), cache)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        errors.append(by_episode(readings))
        rows.append(describe(path, readings, seed) | {"val_error": float(np.mean(list(errors[-1].values())))})
    best = int(np.argmin([row["val_error"] for row in rows]))
    for i, row in enumerate(rows):
        behind = mean_interval(*paired(errors[i], errors[best]), seed=seed)
        row |= {"best": i == best, "as_good": i == best or bool(behind.low <= 0), "behind_ci95": behind.bounds}
    return rows, paths[best]


def require_comparable(paths: list[Path], source: Source, quantities: list[Quantity]) -> None:
    """UserError where the checkpoints were trained on other splits, or a quantity is not the same for all of them."""
    first, known = paths[0], checkpoints.interface_of(paths[0])
    for path in paths:
        interface = checkpoints.interface_of(path)
        fits(interface, source)
        if interface.split_seed != known.split_seed:
            raise UserError(
                f"{first} holds out the episodes of split seed {known.split_seed}, {path} those of "
                f"{interface.split_seed}: there are no episodes to compare them on; probe each by itself"
            )
        for q in quantities:
            seen = [(i.frameskip, q.num_frames(i.history)) for i in (known, interface)]
            if max(seen[0][1], seen[1][1]) > 1 and seen[0] != seen[1]:
                raise UserError(
                    f"{q.name} is read from several frames, and {first} and {path} differ in (frameskip, frames): "
                    f"{seen[0]} and {seen[1]}; leave it out of --targets to compare them"
                )


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

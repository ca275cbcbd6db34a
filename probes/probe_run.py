"""`lewm probe`: reads physical quantities from frozen embeddings, writes the results and prints a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source, open_source
from lewm.errors import UserError
from lewm.probes import results as io
from lewm.probes import tables
from lewm.probes.cache import Cache, identity
from lewm.probes.controls import PixelReader, calibrated, calibration_frames
from lewm.probes.features import ModelReader, Table, device_of, extract
from lewm.probes.frames import union
from lewm.probes.horizon import horizon
from lewm.probes.latent import describe_latent
from lewm.probes.open_loop import imagine_or_why_not, open_loop
from lewm.probes.parts import Plan, plan
from lewm.probes.probe_figures import figures_of, quality_figure
from lewm.probes.quantities import Reading, Values, observe, read_both, score_controls
from lewm.probes.setting import Setting, fits, on_device, prepare
from lewm.probes.several import choose
from lewm.probes.targets import Quantity, load_quantities
from lewm.progress import track

LAYERS = ("embedding", "cls")
LEAST = 20  # frames of a part below which probing makes no sense


def probe(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    data: str | Path,
    out: str | Path | None = None,
    targets: str | Path | None = None,
    split: str = "test",
    layers: tuple[str, ...] = LAYERS,
    max_frames: int = 20_000,
    seed: int = 0,
    cache: bool = True,
) -> dict[str, Any]:
    """Read physical quantities from frozen embeddings beside controls, and measure open-loop error.

    Of several checkpoints each is probed on validation episodes, and the best of them there is the one whose numbers
    on `split` are given.

    Args:
        checkpoint: a checkpoint, a run folder (its newest), a folder of checkpoints (all), or a list of these.
        data: an HDF5 file or a folder of shards.
        out: folder for result.json, result.csv and plots; None for report/probe in the checkpoint's run.
        targets: a shipped name or a YAML file; None for the shipped ones that fit best.
        split: episodes to measure on: test, val, train, or all (in grouped folds).
        layers: what to read from: `embedding`, `cls`, or any module (see `lewm.model.layers`).
        max_frames: frames used of each part, evenly spread.
        seed: seed of probes, controls, folds and intervals.
        cache: keep computed features beside the run, and use those that are there.

    Raises:
        UserError: for anything that does not fit: checkpoint and data, targets, too few episodes.
    """
    if max_frames < LEAST:
        raise UserError(f"--max_frames is {max_frames}; it must be at least {LEAST}")
    paths = checkpoints.every([checkpoint] if isinstance(checkpoint, str | Path) else checkpoint)
    folder = io.out_folder(out, paths, "probe")
    source = open_source(data)
    origin, quantities = load_quantities(targets, source)
    kept = Cache(io.cache_folder(paths, folder) if cache else None, identity(source) if cache else "")
    chosen, about, figures = paths[0], {}, {}
    require_layers(paths[0], source, layers)
    if len(paths) > 1:
        rows, chosen = choose(paths, source, quantities, kept, split=split, max_frames=max_frames, seed=seed)
        about = {"checkpoints": rows, "chosen": str(chosen)}
        figures["checkpoints"] = quality_figure(rows)
    setting = prepare(chosen, folder, seed)
    fits(setting.model.interface, source)
    about["trained_on_this_data"] = setting.model.interface.fingerprint == source.fingerprint()
    described = setting.describe(data, source.fingerprint(), split) | {"targets_from": origin} | about
    result, drawn = examine(setting, source, quantities, kept, split=split, layers=layers, max_frames=max_frames)
    result = io.write_result(described | result, drawn | figures, folder)
    tables.print_probe(result)
    return result


def require_layers(path: Path, source: Source, layers: tuple[str, ...]) -> None:
    """UserError where frames do not fit, or a layer is not known, before anything is computed."""
    model = on_device(checkpoints.load(path))
    fits(model.interface, source)
    frame = torch.from_numpy(source.frames(0, np.zeros(1, dtype=np.int64)))[None]
    model.encode_layers(frame.to(device_of(model)), layers)


def examine(
    setting: Setting,
    source: Source,
    quantities: list[Quantity],
    cache: Cache,
    *,
    split: str,
    layers: tuple[str, ...],
    max_frames: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is measured on one checkpoint, and its figures."""
    model, seed = setting.model, setting.seed
    how = plan(source, split, model.interface.split_seed, seed)
    about = {"history": model.interface.history, "frameskip": model.interface.frameskip}
    values = [observe(source, quantity, how, max_frames, **about) for quantity in quantities]
    others = tuple(layer for layer in layers if layer != "embedding")
    table = look(setting, source, how, values, ("embedding", *others), cache)
    measured, readings = measure(table, values, how, others, seed)
    imagined, note = imagine_or_why_not(model, source, how.test)
    windows = open_loop(imagined, seed=seed) if imagined else []
    ahead = {r["linear"].values.quantity.name: r["linear"] for r in readings}
    ahead = {name: horizon(source, r, imagined, seed=seed) if imagined else [] for name, r in ahead.items()}
    latent = describe_latent(table.at("embedding", values[0].frames.of(how.test)))
    result = (
        {"how": how.how, "folds": len(how.folds), "parts": values[0].chosen}
        | {"n_train": int(np.isin(values[0].frames.episode, how.folds[0].train).sum())}
        | {"n_test": len(readings[0]["linear"].true), "episodes_test": len(np.unique(readings[0]["linear"].episode))}
        | measured
        | {"horizon": ahead, "latent": latent, "open_loop": windows, "open_loop_note": note}
    )
    return result, figures_of(result, source, readings)


def look(
    setting: Setting, source: Source, how: Plan, values: list[Values], layers: tuple[str, ...], cache: Cache
) -> Table:
    """Features of all chosen frames: the model's, the untrained model's and the pixels' principal components."""
    frames, model = union([v.needed for v in values]), setting.model
    train = frames.of(how.folds[0].train)
    first = torch.from_numpy(source.frames(int(train.episode[0]), train.row[:1]))
    width = model.encode(first[None].to(device_of(model))).shape[-1]
    untrained = calibrated(setting.untrained, calibration_frames(source, train))
    readers = [
        ModelReader(model, layers),
        ModelReader(untrained, ("embedding",), prefix="untrained/"),
        PixelReader.fit(source, train, width, seed=setting.seed),
    ]
    return extract(source, frames, readers, cache)


def measure(
    table: Table, values: list[Values], how: Plan, others: tuple[str, ...], seed: int
) -> tuple[dict[str, Any], list[dict[str, Reading]]]:
    """Scores of every quantity by features and controls, and the readings from the embedding."""
    targets: dict[str, Any] = {}
    layers: dict[str, Any] = {layer: {"targets": {}} for layer in others}
    readings: list[dict[str, Reading]] = []
    for each in track(values, "fitting probes"):
        both, name = read_both(table, each, how, "embedding", seed=seed), each.quantity.name
        readings.append(both)
        targets[name] = {probe: reading.score(seed=seed) for probe, reading in both.items()} | each.about
        targets[name]["controls"] = score_controls(table, each, how, seed=seed)
        for layer in others:
            found = read_both(table, each, how, layer, seed=seed)
            layers[layer]["targets"][name] = {probe: reading.score(seed=seed) for probe, reading in found.items()}
    return {"targets": targets, "layers": layers}, readings

"""Which pictures a probing result gets, and the data in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.datasets.schema import Source
from lewm.probes import kinds, pictures, plots, poses
from lewm.probes.frames import Frames, few, read_frames
from lewm.probes.quantities import Reading
from lewm.probes.targets import Quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POSED = 12  # frames with poses drawn over them
MEANT = 200  # frames for the mean picture behind a map of errors


def figures_of(result: dict[str, Any], source: Source, readings: list[dict[str, Reading]]) -> dict[str, Figure]:
    """All figures of one checkpoint's result, by file name."""
    found = {
        "correlations": plots.correlations(result["targets"]),
        "scatter": pictures.predicted_against_true([panel(result, r, probe) for r in readings for probe in r]),
        "spectrum": plots.spectrum(result["latent"]),
    }
    if maps := [error_map(source, r["linear"]) for r in readings if is_place(r["linear"])]:
        found["error_map"] = pictures.error_on_plane(maps)
    if any(r["mlp"].values.quantity.image for r in readings):
        found["poses"] = posed_frames(source, [r["mlp"] for r in readings])
    if result["open_loop"]:
        units = {name: target["error_unit"] for name, target in result["targets"].items()}
        found["open_loop"] = plots.open_loop(result["open_loop"])
        found["horizon"] = pictures.horizon(result["horizon"], units)
    return found


def quality_figure(rows: list[dict[str, Any]]) -> Figure:
    """How well each checkpoint is read on validation episodes, by training step."""
    return pictures.quality_by_step([{**row, "step": row["step"] or 0} for row in rows])


def panel(result: dict[str, Any], readings: dict[str, Reading], probe: str) -> pictures.Panel:
    """True against predicted values of one probe."""
    reading, quantity = readings[probe], readings[probe].values.quantity
    return pictures.Panel(
        title=f"{quantity.name}, {'MLP' if probe == 'mlp' else probe}",
        unit=quantity.error_unit if quantity.kind in ("vector", "velocity") else "",
        components=component_names(quantity),
        true=reading.true,
        predicted=reading.read,
        r=result["targets"][quantity.name][probe]["r"],
    )


def component_names(quantity: Quantity) -> list[str]:
    """Names of a quantity's numbers; those of a place in the picture are its coordinates."""
    names = quantity.components
    if quantity.kind == "vector" and quantity.image is not None and len(names) in (2, 3):
        return list("xyz")[: len(names)]
    return names


def is_place(reading: Reading) -> bool:
    """Whether a quantity has two numbers or more that an error can be mapped over, and one frame tells them.

    What is read from several frames, as a velocity, is no place.
    """
    values = reading.values
    return values.quantity.kind == "vector" and len(values.quantity.components) >= 2 and values.num_frames == 1


def error_map(source: Source, reading: Reading) -> pictures.PlaneErrors:
    """Where the linear probe errs."""
    quantity, edges, background = reading.values.quantity, None, None
    if quantity.image is not None:
        edges = tuple(quantity.image[edge] for edge in ("left", "right", "top", "bottom"))
        mean = read_frames(source, few(reading.values.frames, MEANT)).mean(axis=0).astype(np.uint8)
        background = np.broadcast_to(mean, (*mean.shape[:2], 3)) if mean.shape[-1] == 1 else mean
    return pictures.PlaneErrors(
        title=f"{quantity.name}, linear",
        unit=quantity.error_unit,
        position=reading.true[:, :2],
        error=quantity.error(reading.true, reading.read),
        edges=edges,  # type: ignore[arg-type]
        background=background,
    )


def posed_frames(source: Source, readings: list[Reading]) -> Figure:
    """Test frames with true and read places, and the directions of the angles that belong to them."""
    placed = {r.values.quantity.name: r for r in readings if r.values.quantity.image is not None}
    first = next(iter(placed.values()))
    tested = np.unique(first.episode)
    frames = few(first.values.frames.of(tested), POSED)
    h, w, _ = source.frame_shape
    marks = []
    for name, reading in placed.items():
        if (chosen := rows_at(reading, frames)) is None:
            continue
        places = [reading.values.quantity.place(x[chosen]) * (w, h) for x in (reading.true, reading.read)]
        marks.append(poses.Mark(name, *places, *direction(readings, name, frames)))
    return poses.poses(read_frames(source, frames), marks)


def direction(readings: list[Reading], place: str, frames: Frames) -> tuple[np.ndarray | None, np.ndarray | None]:
    """True and read angle, in radians clockwise from the right, of what is drawn at a place."""
    for reading in readings:
        quantity = reading.values.quantity
        if quantity.kind == "angle" and quantity.at == place:
            if (chosen := rows_at(reading, frames)) is None:
                continue
            true, read = (kinds.angles_of(x[chosen])[:, 0] for x in (reading.true, reading.read))
            return true + np.radians(quantity.turned), read + np.radians(quantity.turned)
    return None, None


def rows_at(reading: Reading, frames: Frames) -> np.ndarray | None:
    """Where a reading speaks of these frames; None where it leaves one out."""
    own = reading.values.frames
    at = {(e, r): i for i, (e, r) in enumerate(zip(*tested_frames(reading, own), strict=True))}
    found = [at.get((e, r)) for e, r in zip(frames.episode.tolist(), frames.row.tolist(), strict=True)]
    return None if None in found else np.array(found)


def tested_frames(reading: Reading, own: Frames) -> tuple[list[int], list[int]]:
    """Episode and row of each frame that was read, in the order of `reading.read`."""
    parts = [own.of(fold.test) for fold, _, _ in reading.folds]
    return [e for p in parts for e in p.episode.tolist()], [r for p in parts for r in p.row.tolist()]

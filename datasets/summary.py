"""What is in a data set: its fingerprint, and the description that `lewm inspect` prints."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lewm.datasets.schema import Source


def fingerprint(source: Source) -> str:
    """Hash of a source's logical content, whatever it is stored in: 32 hex digits.

    Covers every episode's key, length, actions (as float32), first, middle and last frame, and the name, dtype and
    row shape of every column. It does not read every frame: that is what checksums are for.
    """
    digest = blake2b(digest_size=16)
    for name in sorted(source.columns):
        column = source.columns[name]
        digest.update(f"{name}:{column.dtype.str}:{column.shape};".encode())
    digest.update(f"pixels:{tuple(int(n) for n in source.frame_shape)};".encode())
    for e, key in enumerate(source.keys):
        length = int(source.lengths[e])
        digest.update(f"{key}:{length};".encode())
        digest.update(np.ascontiguousarray(source.actions(e), dtype="<f4").tobytes())
        digest.update(source.frames(e, np.array([0, length // 2, length - 1])).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ColumnSummary:
    """One column's type, its NaN and infinite values, and its range."""

    dtype: str
    shape: tuple[int, ...]
    not_finite: int
    low: float | None
    high: float | None


def summarise(source: Source) -> dict[str, Any]:
    """Episodes, lengths, frames, action statistics and every column, as plain values for a table or JSON."""
    from lewm.datasets.stats import action_statistics

    everything = np.arange(len(source.lengths))
    mean, std = action_statistics(source, everything)
    lengths = source.lengths
    return {
        "path": str(source.path),
        "fingerprint": source.fingerprint(),
        "episodes": len(lengths),
        "steps": int(lengths.sum()),
        "length": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "frame": list(int(n) for n in source.frame_shape),
        "action": {"size": source.action_dim, "mean": mean.tolist(), "std": std.tolist()},
        "last_actions_nan": int(sum(np.isnan(source.actions(int(e))[-1]).any() for e in everything)),
        "columns": {name: vars(_summarise_column(source, name)) for name in sorted(source.columns)},
    }


def _summarise_column(source: Source, name: str) -> ColumnSummary:
    column = source.columns[name]
    bad, low, high = 0, np.inf, -np.inf
    for e in range(len(source.lengths)):
        values = source.column(name, e)
        if values.dtype.kind not in "fiub":
            continue
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
        bad += int(values.size - finite.sum())
        if finite.any():
            low, high = min(low, float(values[finite].min())), max(high, float(values[finite].max()))
    known = low <= high
    return ColumnSummary(column.dtype.name, column.shape, bad, low if known else None, high if known else None)


def contact_sheet(source: Source, *, episodes: int = 6, frames: int = 8) -> np.ndarray:
    """A picture of the data, episodes down and time across: (h, w, c) uint8."""
    chosen = np.linspace(0, len(source.lengths) - 1, min(episodes, len(source.lengths))).round().astype(int)
    rows = []
    for e in chosen:
        at = np.linspace(0, int(source.lengths[e]) - 1, frames).round().astype(int)
        padded = np.pad(source.frames(int(e), at), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        rows.append(np.concatenate(list(padded), axis=1))
    return np.concatenate(rows, axis=0)


def print_summary(summary: dict[str, Any]) -> None:
    """The description as a table for a person."""
    from rich.console import Console
    from rich.table import Table

    console, length, action = Console(), summary["length"], summary["action"]
    console.print(f"[bold]{summary['path']}[/]  fingerprint {summary['fingerprint']}", highlight=False)
    console.print(
        f"{summary['episodes']} episodes, {summary['steps']} steps, length {length['min']} to {length['max']} "
        f"(median {length['median']:g}), frames {' x '.join(map(str, summary['frame']))}"
    )
    spread = ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(action["mean"], action["std"], strict=True))
    console.print(f"action: {action['size']} numbers, mean ± std {spread}; the last row of each episode is left out")
    console.print(f"episodes whose last action is NaN: {summary['last_actions_nan']}")
    table = Table("column", "dtype", "row", "min", "max", "not finite")
    for name, column in summary["columns"].items():
        low, high = ("" if v is None else f"{v:.4g}" for v in (column["low"], column["high"]))
        shape = " x ".join(map(str, column["shape"])) or "1"
        table.add_row(name, column["dtype"], shape, low, high, str(column["not_finite"] or ""))
    console.print(table)
    if "damage" in summary:
        console.print("every byte was read: nothing is damaged")

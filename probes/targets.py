"""Physical quantities: which columns hold them, by name, and their values at chosen frames."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lewm.datasets.schema import Source, require_column
from lewm.errors import UserError
from lewm.paths import shipped
from lewm.probes.features import Frames

SHIPPED = ("push_t", "reacher", "cube", "two_room")  # in the order in which they are tried
KINDS = ("vector", "angle")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A slice of a column; an angle is probed as its sine and cosine. `width` is the column's, where it must be."""

    name: str
    column: str
    slice: tuple[int, int]
    kind: str = "vector"
    unit: str = ""
    width: int | None = None

    @property
    def components(self) -> list[str]:
        """Names of the probed numbers."""
        numbers = [str(i) for i in range(*self.slice)]
        return numbers if self.kind == "vector" else [f"{f} {i}" for f in ("sin", "cos") for i in numbers]


def load_quantities(targets: str | Path | None, source: Source) -> tuple[str, list[Quantity]]:
    """Where the quantities are from and what they are: a shipped name, a yaml file, or the first shipped that fits."""
    if targets is None:
        return first_that_fits(source)
    path = Path(targets)
    if not path.suffix:
        if str(targets) not in SHIPPED:
            raise UserError(f"no shipped targets {str(targets)!r}; one of {', '.join(SHIPPED)}, or a .yaml file")
        path = shipped(f"probe/{targets}.yaml")
    quantities = read_quantities(path)
    for quantity in quantities:
        if problem := misfit(quantity, source):
            raise UserError(problem)
    return str(targets), quantities


def first_that_fits(source: Source) -> tuple[str, list[Quantity]]:
    """The first shipped file all of whose quantities the source has."""
    for name in SHIPPED:
        quantities = read_quantities(shipped(f"probe/{name}.yaml"))
        if not any(misfit(quantity, source) for quantity in quantities):
            return name, quantities
    raise UserError(
        f"none of the shipped targets ({', '.join(SHIPPED)}) fits {source.path}; write a file for --targets; "
        f"the columns are: {describe_columns(source)}"
    )


def read_quantities(path: Path) -> list[Quantity]:
    """The quantities of a yaml file: a list of entries with name, column, slice, kind and unit."""
    import yaml

    try:
        entries = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the targets {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not yaml: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} must be a list of entries, each with name, column and slice")
    quantities = [parse(entry, path) for entry in entries]
    if len({q.name for q in quantities}) < len(quantities):
        raise UserError(f"{path} names a quantity twice")
    return quantities


def parse(entry: dict[str, Any], path: Path) -> Quantity:
    """One entry of a targets file, checked."""
    known = [field.name for field in fields(Quantity)]
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r} in {path}; an entry has: {', '.join(known)}")
    missing = [key for key in ("name", "column", "slice") if key not in entry]
    if missing:
        raise UserError(f"an entry of {path} lacks {missing[0]!r}; it needs name, column and slice")
    cut = entry["slice"]
    if not (isinstance(cut, list) and len(cut) == 2 and all(isinstance(i, int) for i in cut) and 0 <= cut[0] < cut[1]):
        raise UserError(f"slice of {entry['name']!r} in {path} is {cut}; it must be [first, one past the last]")
    if entry.get("kind", "vector") not in KINDS:
        raise UserError(f"kind of {entry['name']!r} in {path} is {entry['kind']!r}; one of {', '.join(KINDS)}")
    return Quantity(**{**entry, "slice": (cut[0], cut[1])})


def misfit(quantity: Quantity, source: Source) -> str | None:
    """Why a source cannot give the quantity, or None."""
    try:
        column = require_column(source, quantity.column)
    except UserError as error:
        return str(error)
    width = int(np.prod(column.shape))
    if quantity.slice[1] > width or quantity.width not in (None, width):
        wanted = f"{quantity.width} numbers" if quantity.width else f"numbers {list(quantity.slice)}"
        return (
            f"{quantity.name} needs {wanted} of the column {quantity.column!r}, which has {width} in {source.path}; "
            f"the columns are: {describe_columns(source)}"
        )
    if column.dtype.kind not in "fiub":
        return f"{quantity.name}: the column {quantity.column!r} of {source.path} is {column.dtype}, not numbers"
    return None


def describe_columns(source: Source) -> str:
    """Columns with the shapes of their rows, in one line."""
    return ", ".join(f"{name} {list(map(int, column.shape))}" for name, column in sorted(source.columns.items()))


def values_of(source: Source, quantity: Quantity, frames: Frames) -> Float[np.ndarray, "n c"]:
    """The quantity at each chosen frame; angles as all sines, then all cosines."""
    low, high = quantity.slice
    values = np.empty((len(frames.row), high - low))
    for e in np.unique(frames.episode):
        at = frames.episode == e
        column = source.column(quantity.column, int(e))
        values[at] = column.reshape(len(column), -1)[frames.row[at], low:high]
    if quantity.kind == "angle":
        with np.errstate(invalid="ignore"):  # sine of infinity; such rows are dropped next
            values = np.concatenate([np.sin(values), np.cos(values)], axis=1)
    return values


def usable_rows(values: Float[np.ndarray, "n c"], quantity: Quantity, part: str) -> Bool[np.ndarray, " n"]:
    """Rows in which the quantity is finite; UserError where those are fewer than half."""
    usable = np.asarray(np.isfinite(values).all(axis=1))
    if usable.sum() * 2 < len(usable) or not usable.any():
        raise UserError(
            f"{quantity.name} (column {quantity.column!r}) is NaN or infinite in {int((~usable).sum())} of "
            f"{len(usable)} {part} frames; leave it out of --targets or repair the data"
        )
    return usable


def require_spread(values: Float[np.ndarray, "n c"], quantity: Quantity) -> None:
    """UserError where a component of the quantity does not vary over the training frames."""
    constant = values.std(axis=0) <= 1e-9 * (1 + np.abs(values).max(axis=0))
    if constant.any():
        component = quantity.components[int(np.argmax(constant))]
        raise UserError(
            f"{quantity.name} (column {quantity.column!r}), component {component}, is constant over the training "
            f"frames: there is nothing to probe; leave it out of --targets"
        )

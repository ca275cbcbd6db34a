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
from lewm.probes import kinds
from lewm.probes.frames import Frames
from lewm.probes.seams import CONSTANT

SHIPPED = ("push_t", "reacher", "cube", "two_room")  # in the order in which they are tried
STILL = 1e-3  # standard deviation of a sine, cosine or entry of a rotation matrix below which nothing turns
EDGES = ("left", "right", "top", "bottom")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A slice of a column, and how it is probed.

    Args:
        name: how results call it.
        column: the stored column; one of several axes is flattened.
        slice: first number, and one past the last.
        kind: see `kinds`.
        unit: of the stored numbers.
        width: numbers in a row of the column, where it must have just so many.
        frames: frames the probe sees, one frameskip apart; null for 1, and for the model's history where it is a
            velocity (at least 2).
        order: of a quaternion's numbers, `wxyz` or `xyzw`.
        period: of a velocity's numbers, where they are wrapped.
        image: the first two numbers' values at the picture's edges `left`, `right`, `top`, `bottom`.
        at: of an angle, the quantity at whose place it is drawn.
        turned: what an angle of 0 is drawn as, in degrees clockwise from the picture's right.
    """

    name: str
    column: str
    slice: tuple[int, int]
    kind: str = "vector"
    unit: str = ""
    width: int | None = None
    frames: int | None = None
    order: str = "wxyz"
    period: float | None = None
    image: dict[str, float] | None = None
    at: str | None = None
    turned: float = 0.0

    @property
    def components(self) -> list[str]:
        """Names of the probed numbers."""
        return kinds.component_names(self.kind, *self.slice)

    @property
    def error_unit(self) -> str:
        """The unit of a reading's error."""
        return kinds.error_unit(self.kind, self.unit)

    def error(self, true: Float[np.ndarray, "n c"], read: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
        """How far readings are off in `error_unit`."""
        return kinds.error(self.kind, true, read)

    def num_frames(self, history: int) -> int:
        """Frames the probe sees, for a model that predicts from `history` frames."""
        return self.frames or (max(2, history) if self.kind == "velocity" else 1)

    def seen(self, values: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, " n"] | None:
        """Whether the place lies inside the picture; None where that is not known."""
        if self.image is None:
            return None
        x, y = self.place(values).T
        return (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)

    def place(self, values: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n 2"]:
        """Where in the picture it is: shares of its width from the left and of its height from the top."""
        left, right, top, bottom = (self.image[edge] for edge in EDGES)  # type: ignore[index]
        return (values[:, :2] - (left, top)) / (right - left, bottom - top)


def load_quantities(targets: str | Path | None, source: Source) -> tuple[str, list[Quantity]]:
    """Where the quantities are from and what they are: a shipped name, a file, or the shipped ones that fit best."""
    if targets is None:
        return best_that_fits(source)
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


def best_that_fits(source: Source) -> tuple[str, list[Quantity]]:
    """The shipped file of whose quantities the source has the largest share, above half, and these quantities.

    Those that it has not are named in a notice.
    """
    shares: dict[str, float] = {}
    for name in SHIPPED:
        quantities = read_quantities(shipped(f"probe/{name}.yaml"))
        shares[name] = float(np.mean([misfit(q, source) is None for q in quantities]))
    name = max(shares, key=lambda name: shares[name])  # of equal ones the first
    if shares[name] <= 0.5:
        raise UserError(
            f"none of the shipped targets ({', '.join(SHIPPED)}) fits {source.path}; write a file for --targets; "
            f"the columns are: {describe_columns(source)}"
        )
    quantities = read_quantities(shipped(f"probe/{name}.yaml"))
    problems = {q.name: misfit(q, source) for q in quantities}
    for problem in filter(None, problems.values()):
        print(f"notice: of the targets {name} this is left out: {problem}")
    return name, [q for q in quantities if problems[q.name] is None]


def read_quantities(path: Path) -> list[Quantity]:
    """The quantities of a yaml file: a list of entries with name, column, slice, kind and unit."""
    import yaml

    try:
        entries = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the targets {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not yaml: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} must be a list of entries, each with name, column and slice")
    quantities = [parse(entry, path) for entry in entries]
    if len({q.name for q in quantities}) < len(quantities):
        raise UserError(f"{path} names a quantity twice")
    for q in quantities:
        if q.at is not None and q.at not in {other.name for other in quantities if other.image}:
            raise UserError(f"at of {q.name!r} in {path} is {q.at!r}; it must name a quantity that has an image")
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
    where = f"of {entry['name']!r} in {path}"
    cut = entry["slice"]
    if not (isinstance(cut, list) and len(cut) == 2 and all(isinstance(i, int) for i in cut) and 0 <= cut[0] < cut[1]):
        raise UserError(f"slice {where} is {cut}; it must be [first, one past the last]")
    quantity = Quantity(**{**entry, "slice": (cut[0], cut[1])})
    if problem := wrong_setting(quantity):
        raise UserError(f"{problem[0]} {where} is {entry.get(problem[0])!r}; {problem[1]}")
    return quantity


def wrong_setting(q: Quantity) -> tuple[str, str] | None:
    """The first key whose value cannot be, and what it must be."""
    for key in ("name", "column", "kind", "unit", "order", "at"):
        if not isinstance(getattr(q, key), str) and not (key == "at" and q.at is None):
            return key, "it must be text"
    if not q.name or any(isinstance(i, bool) for i in q.slice):
        return ("slice", "it must be [first, one past the last]") if q.name else ("name", "it must not be empty")
    if not is_number(q.turned):
        return "turned", "it must be a number of degrees"
    size = q.slice[1] - q.slice[0]
    if q.kind == "angle" and q.unit not in ("", "rad"):
        return "unit", "an angle is stored in radians (rad); convert the column"
    if q.kind not in kinds.KINDS:
        return "kind", f"one of {', '.join(kinds.KINDS)}"
    if q.order not in kinds.ORDERS:
        return "order", f"one of {', '.join(kinds.ORDERS)}"
    if q.kind == "quaternion" and size != 4:
        return "slice", "a quaternion has four numbers"
    low = 2 if q.kind == "velocity" else 1
    if q.frames is not None and not (type(q.frames) is int and q.frames >= low):
        return "frames", f"a whole number from {low}"
    if q.period is not None and not (q.kind == "velocity" and is_number(q.period) and q.period > 0):
        return "period", "above 0, and only a velocity has one"
    if q.at is not None and q.kind != "angle":
        return "at", "only an angle is drawn at another quantity's place"
    if q.image is not None:
        if q.kind != "vector" or size < 2 or not isinstance(q.image, dict) or set(q.image) != set(EDGES):
            return "image", f"it needs a vector of two numbers or more, and {', '.join(EDGES)}"
        left, right, top, bottom = (q.image[edge] for edge in EDGES)
        if not all(map(is_number, (left, right, top, bottom))) or left == right or top == bottom:
            return "image", "its edges are four numbers, opposite ones different"
    return None


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


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


def values_of(source: Source, quantity: Quantity, frames: Frames, frameskip: int) -> Float[np.ndarray, "n c"]:
    """The quantity at each chosen frame, as it is probed (see `kinds.encode`)."""
    low, high = quantity.slice
    values = np.empty((len(frames.row), high - low))
    for e, at in frames.by_episode():
        column = source.column(quantity.column, e)
        column = column.reshape(len(column), -1)[:, low:high].astype(np.float64)
        if quantity.kind == "velocity":
            column = kinds.differences(column, frameskip, quantity.period)
        values[at] = column[frames.row[at]]
    return kinds.encode(quantity.kind, values, quantity.order)


def usable_rows(values: Float[np.ndarray, "n c"], quantity: Quantity, part: str) -> Bool[np.ndarray, " n"]:
    """Rows in which the quantity is finite; UserError where those are fewer than half."""
    usable = np.asarray(np.isfinite(values).all(axis=1))
    if usable.sum() * 2 < len(usable) or not usable.any():
        raise UserError(
            f"{quantity.name} (column {quantity.column!r}) is NaN or infinite in {int((~usable).sum())} of "
            f"{len(usable)} {part} frames; leave it out of --targets or repair the data"
        )
    return usable


def varies(values: Float[np.ndarray, "n c"], quantity: Quantity) -> Bool[np.ndarray, " c"]:
    """Which components vary over training frames; UserError where one that should does not.

    Of an orientation some may not: what turns in one plane only leaves parts of its rotation matrix as they are.
    """
    spread, size = values.std(axis=0), 1 + np.abs(values).max(axis=0)
    if quantity.kind in ("angle", "quaternion"):
        moving = spread > STILL
        still = not moving.any()
    else:
        moving = spread > CONSTANT * size
        still = not moving.all()
    if still:
        component = quantity.components[int(np.argmin(moving))]
        raise UserError(
            f"{quantity.name} (column {quantity.column!r}), component {component}, is constant over the {len(values)} "
            "training frames: there is nothing to probe; leave it out of --targets"
        )
    return np.asarray(moving)

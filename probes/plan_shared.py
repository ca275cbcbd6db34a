"""Which episodes are copies of others, told by their actions: a copy of other pixels, size or length has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

WINDOW = 8  # rows in a row that must be equal, bit for bit
FEWEST = 5  # of an episode with fewer actions nothing can be told
CHANCE = 1e-9  # expected number of chance hits below which a hit is none

Actions = Float[np.ndarray, "t a"]


def copies(own: Iterable[Actions], others: Iterable[Actions]) -> list[bool | None]:
    """Whether each episode shares `WINDOW` rows of actions with any of the others, anywhere in it.

    An episode with fewer rows, but `FEWEST`, is looked for as a whole; of a still shorter one None is said. Runs that
    could be equal by chance do not count: constant ones, or ones of a few values that all policies take.
    """
    mine = [_Rows(actions) for actions in own]
    wanted = {window for rows in mine for window in rows.windows(rows.size)}
    mine_rows = {row for rows in mine for row in rows.each}
    sizes = {rows.size for rows in mine} - {0}
    found: set[bytes] = set()
    counts: Counter[bytes] = Counter()
    for rows in map(_Rows, others):
        counts.update(row for row in rows.each if row in mine_rows)
        counts[b""] += len(rows.each)
        for size in sizes:
            found |= wanted.intersection(rows.windows(size))
    return [_shared(rows, found, counts) for rows in mine]


def _shared(rows: _Rows, found: set[bytes], counts: Counter[bytes]) -> bool | None:
    if rows.size == 0:
        return None
    return any(window in found and _by_chance(rows.cut(window), counts) < CHANCE for window in rows.windows(rows.size))


def _by_chance(rows: list[bytes], counts: Counter[bytes]) -> float:
    """How many such windows as many rows would hold, were they drawn alone with their own frequencies.

    A row that repeats the one before adds nothing: actions are held, or cut at a bound.
    """
    total = counts[b""]
    changes = [row for i, row in enumerate(rows) if i == 0 or row != rows[i - 1]]
    return total * float(np.prod([counts[row] / total for row in changes]))


class _Rows:
    """The actions of an episode as bytes, its last row, which has no valid action, left out."""

    def __init__(self, actions: Actions) -> None:
        valid = np.ascontiguousarray(actions[:-1], dtype="<f4") + np.float32(0)  # -0 becomes 0
        self.width = valid.shape[1] * valid.itemsize
        self.all = valid.tobytes()
        self.each = self.cut(self.all)
        self.size = min(WINDOW, len(self.each)) if len(self.each) >= FEWEST else 0

    def cut(self, rows: bytes) -> list[bytes]:
        """Rows one by one."""
        return [rows[i : i + self.width] for i in range(0, len(rows), self.width)]

    def windows(self, size: int) -> list[bytes]:
        """All runs of `size` rows."""
        starts = range(len(self.each) - size + 1) if size else ()
        return [self.all[i * self.width : (i + size) * self.width] for i in starts]

"""Which episodes are copies of others, told by their actions: a copy of other pixels, size or length has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

WINDOW = 8  # rows in a row that must be equal, bit for bit
FEWEST = 5  # of an episode with fewer actions nothing can be told
CHANCE = 1e-9  # expected number of chance hits below which a hit is none

Actions = Float[np.ndarray, "t a"]


def copies(own: Iterable[Actions], others: Iterable[Actions]) -> list[bool | None]:
    """Whether each episode shares a run of actions with any of the others, anywhere in it.

    `WINDOW` rows are enough where they could not be equal by chance. Where they could (actions that are held, cut at a
    bound, or of a few values), longer runs are looked for, up to the whole of the episode; where even that tells
    nothing None is said. An episode with fewer rows, but `FEWEST`, is looked for as a whole; of a still shorter one
    None is said.
    """
    pool = _Pool()
    searches = [_Search(_Rows(actions), pool) for actions in own]
    left: Iterable[_Rows] = pool.counted(others, {row for search in searches for row in search.rows.each})
    while going := [search for search in searches if search.going]:
        left = pool.look_for({window for search in going for window in search.windows}, left)
        for search in going:
            search.grow()
    return [search.found for search in searches]


class _Rows:
    """The actions of an episode as bytes, its last row, which has no valid action, left out."""

    def __init__(self, actions: Actions) -> None:
        valid = np.ascontiguousarray(actions[:-1], dtype="<f4") + np.float32(0)  # -0 becomes 0
        self.width = valid.shape[1] * valid.itemsize
        self.all, self.num = valid.tobytes(), len(valid)

    @property
    def each(self) -> list[bytes]:
        """Row by row."""
        return self.windows(1)

    def windows(self, size: int) -> list[bytes]:
        """All runs of `size` rows."""
        return [self.window(start, size) for start in range(self.num - size + 1)]

    def window(self, start: int, size: int) -> bytes:
        """`size` rows from one on."""
        return self.all[start * self.width : (start + size) * self.width]


class _Pool:
    """How often rows, and the windows that were looked for, occur in the others; equal episodes count once."""

    def __init__(self) -> None:
        self.rows: Counter[bytes] = Counter()
        self.total = 0
        self.seen: Counter[bytes] = Counter()

    def counted(self, others: Iterable[Actions], wanted: set[bytes]) -> Iterator[_Rows]:
        """The others, one by one, their rows counted as they pass."""
        passed: set[bytes] = set()
        for rows in map(_Rows, others):
            if rows.all not in passed:
                passed.add(rows.all)
                self.rows.update(row for row in rows.each if row in wanted)
                self.total += rows.num
                yield rows

    def look_for(self, wanted: set[bytes], others: Iterable[_Rows]) -> list[_Rows]:
        """Count these windows; the others that hold any of them."""
        holding, sizes = [], {}
        for rows in others:
            sizes = sizes or {len(window) // rows.width for window in wanted}
            hits = [window for size in sizes for window in rows.windows(size) if window in wanted]
            self.seen.update(hits)
            if hits:
                holding.append(rows)
        return holding

    def by_chance(self, rows: list[bytes]) -> float:
        """How many such runs as many rows would hold, were they drawn alone with their own frequencies.

        A row that repeats the one before adds nothing: actions are held, or cut at a bound.
        """
        changes = [row for i, row in enumerate(rows) if i == 0 or row != rows[i - 1]]
        return self.total * float(np.prod([self.rows[row] / self.total for row in changes]))


class _Search:
    """For one episode: the runs of it that some other holds, longer from one pass over the others to the next."""

    def __init__(self, rows: _Rows, pool: _Pool) -> None:
        self.rows, self.pool = rows, pool
        self.size = min(WINDOW, rows.num)
        self.sizes = [self.size]
        self.starts = list(range(rows.num - self.size + 1))
        self.going = rows.num >= FEWEST
        self.found: bool | None = False if self.going else None

    @property
    def windows(self) -> list[bytes]:
        """What is to be looked for next."""
        return [self.rows.window(start, self.size) for start in self.starts]

    def grow(self) -> None:
        """Judge the windows that were found, or make them longer: where a long run is shared, its parts are, too."""
        self.starts = [start for start in self.starts if self.rows.window(start, self.size) in self.pool.seen]
        whole = self.size == self.rows.num
        if any(map(self._telling, self.starts)):
            self.found, self.going = True, False
        elif whole and self.starts:
            self.found, self.going = None, False
        else:
            self.size = min(self.rows.num, self.size * 3 // 2)
            self.sizes.append(self.size)
            self.starts = [start for start in self.starts if start + self.size <= self.rows.num]
            self.going = bool(self.starts)

    def _telling(self, start: int) -> bool:
        """Whether the run is beyond chance; a longer one than `WINDOW` only if half of it is nowhere else.

        Frequencies say nothing of order: a long wave that all episodes are made of is no copy, and recurs.
        """
        run = [self.rows.window(i, 1) for i in range(start, start + self.size)]
        if self.pool.by_chance(run) >= CHANCE:
            return False
        half = max([size for size in self.sizes if 2 * size <= self.size], default=self.sizes[0])
        return self.size == self.sizes[0] or self.pool.seen[self.rows.window(start, half)] == 1

"""Clips that cannot be read, left out: what stands in for each, and when there are too many."""

from __future__ import annotations

import numpy as np

from lewm.errors import UserError

IN_A_ROW = 100  # as many one after another are no accident
SHARE = 0.001  # of the clips of a part
FLOOR = 10  # in a small data set: one damaged frame spoils every clip that shows it


def substitute(clip: int, attempt: int, num_clips: int) -> int:
    """The clip that stands in for one that cannot be read: a pure function, so the same for all ranks and workers.

    Spread over all clips: the next one in the file is likely to be damaged too.
    """
    key = np.array([clip, attempt], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw() % np.uint64(num_clips))


class BadRecords:
    """Counts the clips of a part that were left out, in the order of its global batches: alike on every rank."""

    def __init__(self, num_clips: int, part: str = "training") -> None:
        self.limit = max(FLOOR, int(SHARE * num_clips))
        self.num_clips, self.part = num_clips, part
        self.total = 0  # every time that one was drawn
        self._clips: set[int] = set()
        self._in_a_row = 0

    def note(self, clips: np.ndarray, bad: np.ndarray) -> None:
        """Count a global batch: clip numbers and which were left out. UserError where that is too many to go on.

        What counts is how many different clips are bad, so that a long run may meet the same few in every epoch.
        """
        for clip in clips[bad]:
            self._clips.add(int(clip))
        self.total += int(bad.sum())
        good = np.flatnonzero(~bad)
        self._in_a_row = len(bad) - 1 - int(good[-1]) if len(good) else self._in_a_row + len(bad)
        if self._in_a_row >= IN_A_ROW:
            raise UserError(f"{self._in_a_row} clips in a row cannot be read; `lewm inspect --verify` lists all damage")
        if len(self._clips) > self.limit:
            raise UserError(
                f"{len(self._clips)} of {self.num_clips} {self.part} clips cannot be read, more than {self.limit} "
                f"(0.1 % of them, at least {FLOOR}); `lewm inspect --verify` lists all damage: restore the data"
            )

"""Trials of violation of expectation: a clip as it happened, and the same clip with an event in it, by kind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lewm.datasets.violation import Clip, Nature
from lewm.errors import UserError


@dataclass(frozen=True)
class Version:
    """A clip in which something happens."""

    clip: Clip
    event: int  # the step, from 0, whose prediction the event breaks


@dataclass(frozen=True)
class Trial:
    """One clip as it happened, and its versions, which are equal to it before their events."""

    plain: Clip
    versions: dict[str, Version]  # by kind; a kind is absent where nothing would happen
    group: int  # trials of one group are not independent: they are of one episode


@dataclass(frozen=True)
class Trials:
    """Trials of the same kinds, clips of equal length."""

    natures: dict[str, Nature]  # of each kind, in the order in which they are reported
    each: Iterable[Trial]
    fingerprint: str
    what: str  # for people: where the clips come from
    split: str


def event_step(perturbed: int, frameskip: int, num_frames: int) -> int:
    """The step of a subsampled clip in which the event happens, from 0; UserError where it is not inside the clip.

    The clip keeps rows 0, k, 2k, ...; step i leads from its frame i to its frame i + 1. The event is visible from row p
    on, so first in frame j = ceil(p / k), and the step that leads there is i = j - 1.
    """
    first = math.ceil(perturbed / frameskip)
    if not 1 <= first < num_frames:
        raise UserError(
            f"the event at row {perturbed} is outside the clip: at frameskip {frameskip} its {num_frames} frames "
            f"show events of rows 1 to {(num_frames - 1) * frameskip}"
        )
    return first - 1

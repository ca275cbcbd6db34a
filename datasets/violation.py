"""What can be made to happen in a clip that should not: one registry of kinds, from recordings and from simulators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from lewm.errors import UserError

PLAIN = "unperturbed"  # what the clip as it happened is called beside its kinds
MIN_CHANGE = 16  # grey levels; where no pixel changes by more, nothing is seen to happen

Nature = Literal["physical", "visual"]  # against the dynamics; or possible, and only new to look at


@dataclass(frozen=True)
class Clip:
    """Frames, subsampled, and the blocks of actions between them."""

    pixels: UInt8[np.ndarray, "t h w c"]
    actions: Float32[np.ndarray, "t-1 k a"]


@dataclass(frozen=True)
class Scene:
    """What a violation of recorded clips is made of; all clips are of equal length.

    Block i of a clip leads from frame i to frame i + 1, so block first - 1 leads to the first frame that is wrong.
    """

    own: Clip
    first: int  # the frame from which on something is wrong
    later: Clip | None  # the same episode some frames later; None where it ends before
    other: Clip | None  # of another episode with the same background; None where there is none


class Violation(Protocol):
    """A kind of event, found in the registry by its name."""

    name: ClassVar[str]
    nature: ClassVar[Nature]
    lasts: ClassVar[bool]  # whether it goes on after its first frame, so that no later prediction comes true either


class RecordedViolation(Violation, Protocol):
    """Makes its clip from recordings."""

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        """The scene's own clip with the event in it; None where the scene lacks what it takes."""
        ...


class SimulatedViolation(Violation, Protocol):
    """Changes a world; the clip is simulated again with the same actions."""

    def intervene(self, world: Any, rng: np.random.Generator) -> None:
        """Change the world, just before the first wrong frame is drawn."""
        ...


REGISTRY: dict[str, type[Violation]] = {}
V = TypeVar("V", bound=type)


def register(kind: V) -> V:
    """Class decorator: make a kind known by its name."""
    assert kind.name not in REGISTRY, kind.name
    REGISTRY[kind.name] = kind
    return kind


def registry() -> dict[str, type[Violation]]:
    """Every kind by its name."""
    import lewm.datasets.violation_recorded
    import lewm.datasets.violation_simulated  # noqa: F401

    return REGISTRY


def kinds_of(base: type, names: Iterable[str] = ()) -> list[Any]:
    """One of each kind that is made as `base` says (it has `disturb`, or `intervene`), or those named; UserError."""
    method = "disturb" if base is RecordedViolation else "intervene"
    known = {name: kind for name, kind in registry().items() if hasattr(kind, method)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no violation {unknown[0]!r} is made this way; there are: {', '.join(sorted(known))}")
    return [known[name]() for name in (list(names) or known)]

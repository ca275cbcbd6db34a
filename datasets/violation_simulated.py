"""Violations made in a simulator: the world is changed from outside, and the rest of the clip is simulated again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from inspect import Parameter, signature
from typing import Any, ClassVar, Protocol

import numpy as np

from lewm.datasets.violation import Nature, SimulatedViolation, kinds_of, register
from lewm.errors import UserError

COLOUR_DISTANCE = 150.0  # of a new colour from the old one and from the others, Euclidean in RGB
TELEPORT_DISTANCE = 40.0  # units
DRAWS = 10_000  # after which a colour or place is held not to exist

Rgb = tuple[int, int, int]


class Movable(Protocol):
    """A world whose agent can be put elsewhere."""

    @property
    def state(self) -> np.ndarray: ...

    def set_state(self, state: np.ndarray) -> None: ...

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A random legal state."""
        ...


class Paintable(Protocol):
    """A world whose objects have colours."""

    @property
    def colours(self) -> dict[str, Rgb]: ...

    def set_colour(self, name: str, rgb: Rgb) -> None: ...


class Hideable(Protocol):
    """A world whose objects can be left out of the picture."""

    def set_visible(self, name: str, visible: bool) -> None: ...


class Bendable(Protocol):
    """A world whose laws of motion can be changed; it takes as keywords those that it has."""

    def set_physics(self, *, speed: float = 1.0, momentum: float = 0.0, walls: bool = True) -> None: ...


class Simulated(ABC):
    """What the kinds below have in common; see `violation.SimulatedViolation`."""

    name: ClassVar[str]
    nature: ClassVar[Nature] = "physical"
    lasts: ClassVar[bool] = False
    waits: ClassVar[bool] = False  # whether it shows only where the agent comes upon it, so that it is made early

    @abstractmethod
    def lack(self, world: Any) -> str | None:
        """What the world would have to have for this; None where nothing is missing."""

    @abstractmethod
    def intervene(self, world: Any, rng: np.random.Generator) -> None:
        """Change the world."""


@register
class Moved(Simulated):
    """The agent is at another legal place, at least 40 units away."""

    name = "moved"

    def lack(self, world: Any) -> str | None:
        """See `Movable`."""
        return missing(world, "state", "set_state", "sample_state")

    def intervene(self, world: Movable, rng: np.random.Generator) -> None:
        """Teleport."""
        world.set_state(far_place(world, rng))


@register
class Vanished(Simulated):
    """The agent is not seen any more; it is there and obeys."""

    # It stays away, but that does not last: in the frames that follow, an empty room stays empty.
    name = "vanished"

    def lack(self, world: Any) -> str | None:
        """See `Hideable`."""
        return missing(world, "set_visible")

    def intervene(self, world: Hideable, rng: np.random.Generator) -> None:
        """Hide."""
        world.set_visible("agent", False)


class Bent(Simulated):
    """Other laws of motion from the event on. They show in the first frame after a step that they change."""

    lasts = True
    laws: ClassVar[dict[str, Any]]

    def lack(self, world: Any) -> str | None:
        """See `Bendable`."""
        absent = [law for law in self.laws if not takes(getattr(world, "set_physics", None), law)]
        return missing(world, "set_physics") or (f"set_physics({absent[0]}=...)" if absent else None)

    def intervene(self, world: Bendable, rng: np.random.Generator) -> None:
        """Set the laws."""
        world.set_physics(**self.laws)


@register
class ThroughWall(Bent):
    """The inner wall stops nobody."""

    # It lasts: every step inside the wall is impossible, not the first alone.
    name = "through_wall"
    waits = True
    laws = {"walls": False}


@register
class Heavier(Bent):
    """Twice the mass under the same force: displacements are halved."""

    name = "heavier"
    laws = {"speed": 0.5}


@register
class Slippery(Bent):
    """Less friction: half of every displacement is kept for the next step."""

    name = "slippery"
    laws = {"momentum": 0.5}


class Painted(Simulated):
    """An object has another colour from the event on, far from the old one and from those of all other objects.

    What has the very colour of the object is painted with it: a door that looked like the floor still does.
    """

    nature = "visual"
    painted: ClassVar[str]

    def lack(self, world: Any) -> str | None:
        """See `Paintable`."""
        absent = missing(world, "colours", "set_colour")
        return absent or (None if self.painted in world.colours else f"colour of {self.painted!r}")

    def intervene(self, world: Paintable, rng: np.random.Generator) -> None:
        """Paint."""
        old, new = world.colours[self.painted], new_colour(world, rng)
        for name in [name for name, colour in world.colours.items() if colour == old]:
            world.set_colour(name, new)


@register
class AgentColour(Painted):
    """The agent is repainted."""

    name, painted = "agent_colour", "agent"


@register
class WallColour(Painted):
    """The wall is repainted."""

    name, painted = "wall_colour", "wall"


@register
class BackgroundColour(Painted):
    """The background is repainted."""

    name, painted = "background_colour", "background"


def simulated_kinds(world: Any, names: Iterable[str]) -> list[Any]:
    """The kinds named, or with the name `all` those that the world can do; UserError where it cannot do one."""
    names = list(dict.fromkeys(names))
    if not names:
        raise UserError("no kind of event is named; name some by commas, or all")
    if names == ["all"]:
        able = [kind for kind in kinds_of(SimulatedViolation) if kind.lack(world) is None]
        if not able:
            raise UserError(f"{type(world).__name__} has no setter that an event could be made with (set_state, ...)")
        return able
    kinds = kinds_of(SimulatedViolation, names)
    for kind in kinds:
        lack = kind.lack(world)
        if lack is not None:
            raise UserError(
                f"{kind.name!r} cannot be made in {type(world).__name__}: it has no {lack}; choose other kinds"
            )
    return kinds


def missing(world: Any, *names: str) -> str | None:
    """The first of these attributes that the world does not have."""
    return next((name for name in names if not hasattr(world, name)), None)


def takes(method: Any, keyword: str) -> bool:
    """Whether a method can be called with this keyword."""
    parameters = signature(method).parameters if callable(method) else {}
    return keyword in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def new_colour(world: Paintable, rng: np.random.Generator) -> Rgb:
    """A random colour that no object has or nearly has."""
    others = np.array(list(world.colours.values()), dtype=float)
    for _ in range(DRAWS):
        r, g, b = rng.integers(0, 256, 3).tolist()
        if np.linalg.norm(others - (r, g, b), axis=1).min() >= COLOUR_DISTANCE:
            return r, g, b
    raise UserError(f"no colour is {COLOUR_DISTANCE:g} away from all {len(others)} of {type(world).__name__}")


def far_place(world: Movable, rng: np.random.Generator) -> np.ndarray:
    """A random legal state, far from the present one."""
    here = world.state
    for _ in range(DRAWS):
        place = world.sample_state(rng)
        if np.linalg.norm(place - here) >= TELEPORT_DISTANCE:
            return place
    raise UserError(f"no state of {type(world).__name__} in {DRAWS} is {TELEPORT_DISTANCE:g} from the present one")

"""How planning is judged: the rules of `strict`, `moderate` and `paper`, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from lewm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which pairs of start and goal are drawn, how long a planner has, and how many there must be.

    Args:
        name: what it is called.
        offset: environment steps from the start's row to the goal's, in one recorded episode.
        budget: environment steps that a planner has.
        pairs: how many pairs there must be.
        seeds: how many planner seeds.
        split: episodes that pairs are drawn from, unless told otherwise.
        one_an_episode: one pair of each episode at most; else rows are drawn uniformly from all episodes.
        excludes: whether pairs that ask for nothing (solved at the start, in one room) are left out.
        held_out: whether the model must not have been trained or chosen on the episodes.
        near: what counts as solved, where the world has no rule of its own and a user says how near.
    """

    name: str
    offset: int = 25
    budget: int = 50
    pairs: int = 100
    seeds: int = 3
    split: str = "test"
    one_an_episode: bool = True
    excludes: bool = True
    held_out: bool = True
    near: float | None = None

    def describe(self) -> dict[str, Any]:
        """The rules as results hold them."""
        return asdict(self)

    def changed(self, *, offset: int | None, budget: int | None, near: float | None = None) -> Protocol:
        """With another offset or budget, where one is given, and with `near`; UserError for a length below 1."""
        given = {name: value for name, value in (("offset", offset), ("budget", budget)) if value is not None}
        for name, value in given.items():
            if value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1 environment step")
        return replace(self, near=near, **given)

    def missed(
        self,
        own: Protocol,
        *,
        pairs: int,
        seeds: int,
        held_out: bool | None,
        asked: int | None = None,
        as_drawn: bool | None = True,
        goals: int = 1,
    ) -> list[str]:
        """What of the rule `own` a run under these settings does not meet, in words; [] where all of it is met.

        `asked` is how many pairs were asked for, `as_drawn` whether they are those that their seed draws, `goals` the
        number of goal frames shown.
        """
        found = [
            f"{name} {getattr(self, name)} instead of {getattr(own, name)}"
            for name in ("offset", "budget")
            if getattr(self, name) != getattr(own, name)
        ]
        if pairs < (wanted := max(own.pairs, asked or 0)):
            found.append(f"{pairs} pairs instead of {wanted}")
        if self.near is not None:
            found.append(f"solved is what is within --near {self.near:g}, not what a rule of the protocol says")
        if goals > 1:
            found.append(f"{goals} goal frames instead of one")
        if as_drawn is not True:
            known = "not those" if as_drawn is False else "perhaps not those"
            found.append(f"hand-picked pairs: {known} that the manifest's own seed draws")
        if seeds < own.seeds:
            found.append(f"planner seeds {seeds} instead of {own.seeds}")
        if own.held_out and held_out is not True:
            known = "not held out" if held_out is False else "perhaps not held out: the training data are not at hand"
            found.append(f"some of the episodes are {known}")
        return found


STRICT = Protocol(name="strict")
PROTOCOLS = {
    "strict": STRICT,
    "moderate": replace(STRICT, name="moderate"),
    "paper": Protocol(
        name="paper", pairs=50, seeds=1, split="all", one_an_episode=False, excludes=False, held_out=False
    ),
}
OF_WORLDS: dict[tuple[str, str], dict[str, Any]] = {  # where a world has numbers of its own
    ("paper", "two_room"): {"offset": 100, "budget": 150},  # a later version of the paper: 25 and 50
}


def protocol_of(name: str, world: str) -> Protocol:
    """The protocol of that name for a world; UserError for an unknown name."""
    if name not in PROTOCOLS:
        raise UserError(f"no protocol {name!r}; one of {', '.join(PROTOCOLS)}")
    return replace(PROTOCOLS[name], **OF_WORLDS.get((name, world), {}))

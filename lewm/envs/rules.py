"""The rules of each world, by name."""

from __future__ import annotations

from lewm.envs.predicates import Rules
from lewm.envs.two_room_rules import TwoRoomRules
from lewm.errors import UserError

RULES: dict[str, type[Rules]] = {"two_room": TwoRoomRules}


def rules_of(world: str, protocol: str) -> Rules:
    """What counts in a world under a protocol; UserError for a world without rules."""
    if world not in RULES:
        raise UserError(f"success in world {world!r} is not defined; it is for: {', '.join(RULES)}")
    return RULES[world](protocol)

"""Worlds by name, and the policies that behave in them."""

from __future__ import annotations

from typing import Any

from lewm.errors import UserError


def make_world(name: str, *, image_size: int) -> Any:
    """A world whose observation is its frame."""
    if name != "two_room":
        raise UserError(f"no world {name!r} is built in; there is: two_room")
    from lewm.envs.two_room import TwoRoom

    return TwoRoom(image_size=image_size)


def make_policy(world: str, name: str) -> Any:
    """A seeded behaviour policy for a world."""
    from lewm.envs.two_room_policy import POLICIES

    if name not in POLICIES:
        raise UserError(f"no policy {name!r} for {world}; one of {', '.join(sorted(POLICIES))}")
    return POLICIES[name]()

"""Worlds by name, and the policies that behave in them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lewm.errors import UserError

WORLDS = {  # name: module and class of the world, module of its policies
    "two_room": ("two_room", "TwoRoom", "two_room_policy"),
}


def make_world(name: str, *, image_size: int) -> Any:
    """A world whose observation is its frame (image_size, image_size, 3); UserError for an unknown name."""
    if name not in WORLDS:
        raise UserError(f"no world {name!r}; one of {', '.join(WORLDS)}")
    module, kind, _ = WORLDS[name]
    return getattr(import_module(f"lewm.envs.{module}"), kind)(image_size=image_size)


def make_policy(world: str, name: str | None = None) -> Any:
    """A seeded behaviour policy for a world, its first one for None."""
    policies = policies_of(world)
    if name is not None and name not in policies:
        raise UserError(f"no policy {name!r} for {world}; one of {', '.join(policies)}")
    return policies[name or next(iter(policies))]()


def policies_of(world: str) -> dict[str, Any]:
    """Policies by name, the one for collecting first; UserError for an unknown world."""
    if world not in WORLDS:
        raise UserError(f"no world {world!r}; one of {', '.join(WORLDS)}")
    return import_module(f"lewm.envs.{WORLDS[world][2]}").POLICIES

"""Worlds by name, and the policies that behave in them; a Gymnasium id names that environment as a world."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from lewm.errors import UserError

WORLDS = {  # name: module and class of the world, module of its policies
    "two_room": ("two_room", "TwoRoom", "two_room_policy"),
    "push_t": ("push_t", "PushT", "push_t_policy"),
    "reacher": ("reacher", "Reacher", "common_policy"),
    "cube": ("cube", "Cube", "cube_policy"),
}


def make_world(name: str, *, image_size: int) -> Any:
    """A world whose observation is its frame (image_size, image_size, 3); UserError for an unknown name."""
    if is_adapted(name):
        from lewm.envs.adapter import Adapter

        return Adapter(name, image_size=image_size)
    if name not in WORLDS:
        raise UserError(no_world(name))
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
    if is_adapted(world):
        from lewm.envs.common_policy import POLICIES

        return POLICIES
    if world not in WORLDS:
        raise UserError(no_world(world))
    return import_module(f"lewm.envs.{WORLDS[world][2]}").POLICIES


def is_adapted(world: str) -> bool:
    """Whether a name is a Gymnasium id: with a namespace or a version."""
    return "/" in world or re.search(r"-v\d+$", world) is not None


def no_world(name: str) -> str:
    """What to say of an unknown name."""
    return f"no world {name!r}; one of {', '.join(WORLDS)}, or a Gymnasium id, as Pendulum-v1"

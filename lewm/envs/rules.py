"""The rules of each world, by name."""

from __future__ import annotations

from lewm.envs import is_adapted
from lewm.envs.cube_rules import CubeRules
from lewm.envs.predicates import Rules
from lewm.envs.push_t_rules import PushTRules
from lewm.envs.reacher_rules import ReacherRules
from lewm.envs.state_rules import StateRules
from lewm.envs.two_room_rules import TwoRoomRules
from lewm.errors import UserError

RULES: dict[str, type[Rules]] = {
    "two_room": TwoRoomRules,
    "push_t": PushTRules,
    "reacher": ReacherRules,
    "cube": CubeRules,
}


def rules_of(world: str, protocol: str, near: float | None = None) -> Rules:
    """What counts in a world under a protocol; UserError for a world without rules.

    `near` is how near to the goal is solved in a world by its Gymnasium id; other worlds have rules of their own.
    """
    if is_adapted(world):
        if near is None:
            where = "over the numbers of its state"
            raise UserError(f"success in world {world!r} is not defined; give --near DISTANCE, {where}")
        return StateRules(protocol, near)
    if world not in RULES:
        raise UserError(f"no world {world!r} in which success is defined; it is for: {', '.join(RULES)}")
    if near is not None:
        raise UserError(f"--near is for worlds by their Gymnasium id; success in {world} is defined, leave it out")
    return RULES[world](protocol)

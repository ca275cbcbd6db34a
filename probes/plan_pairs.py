"""Pairs of start and goal from a data set: drawn or read from a manifest, checked, and made into tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.schema import Source, require_column
from lewm.datasets.split import episodes_of, part_of
from lewm.envs.predicates import Rules, State
from lewm.envs.restored import Restored
from lewm.errors import UserError
from lewm.plan.evaluate import Task
from lewm.plan.manifest import Manifest, draw, read
from lewm.plan.protocols import Protocol
from lewm.probes.ordinary import Part, trained_on
from lewm.probes.parts import measured_episodes
from lewm.probes.setting import Setting

AUTO = "auto"
ALIKE = 4.0  # mean grey levels between a recorded frame and the world's own; compressed ones of this world differ by 2
LOOKED_AT = 8  # pairs whose frames are compared


def check_world(world: Restored, rules: Rules, env: str, source: Source) -> None:
    """UserError where a data set has no true states of the world, or frames of another size than it."""
    for name, size in rules.columns.items():
        column = require_column(source, name)
        if column.shape != (size,):
            raise UserError(
                f"{name} of {source.path} has shape {column.shape}, that of {env} has {size} numbers; "
                f"give data of {env}"
            )
    own = world.frame_shape
    if own != tuple(source.frame_shape):
        raise UserError(f"goal images of {source.path} are {source.frame_shape} (h, w, c), frames of {env} are {own}")


def states_of(source: Source, rules: Rules, episode: int) -> Float[np.ndarray, "t x"]:
    """True states of one episode."""
    return np.concatenate([source.column(name, episode) for name in rules.columns], axis=1)


def find_pairs(
    setting: Setting,
    source: Source,
    rules: Rules,
    env: str,
    rule: Protocol,
    *,
    manifest: str | Path | None,
    split: str,
    pairs: int | None,
) -> Manifest:
    """A frozen sample, or one drawn now; the first `pairs` of it."""
    if manifest is None:
        return draw_pairs(setting, source, rules, env, rule, split, rule.pairs if pairs is None else pairs)
    found = read(manifest)
    lengths = dict(zip(source.keys, map(int, source.lengths), strict=True))
    found.check(manifest, world=env, protocol=rule, fingerprint=source.fingerprint(), lengths=lengths)
    if split not in (AUTO, found.split):
        raise UserError(f"{manifest} was drawn from split {found.split}, not {split}; leave --split out")
    number = {key: e for e, key in enumerate(source.keys)}
    for i, pair in enumerate(found.pairs if rule.excludes else ()):
        states = states_of(source, rules, number[pair.episode])
        if (why := rules.reason(states[pair.start], states[pair.goal])) is not None:
            raise UserError(f"pair {i} of {manifest} is {why}, which protocol {rule.name} excludes; draw it again")
    return found if pairs is None else found.first(pairs)


def draw_pairs(
    setting: Setting, source: Source, rules: Rules, env: str, rule: Protocol, split: str, num: int
) -> Manifest:
    """A sample of the part; UserError where there is no pair."""
    split_seed = setting.model.interface.split_seed
    split = rule.split if split == AUTO else split

    def reasons(episode: int, offset: int) -> list[str | None]:
        states = states_of(source, rules, episode)
        return [rules.reason(a, b) for a, b in zip(states[:-offset], states[offset:], strict=True)]

    return draw(
        rule,
        num,
        episodes=measured_episodes(source, split, split_seed).tolist(),
        keys=source.keys,
        lengths=source.lengths.tolist(),
        reasons=reasons,
        seed=setting.seed,
        world=env,
        fingerprint=source.fingerprint(),
        split=split,
        split_seed=split_seed,
    )


def tasks_of(manifest: Manifest, source: Source, rules: Rules) -> list[Task]:
    """What is to be planned for: recorded start state, recorded goal frame, a judge that knows the goal's state."""
    number = {key: e for e, key in enumerate(source.keys)}
    found = []
    for pair in manifest.pairs:
        states = states_of(source, rules, number[pair.episode])
        (goal,) = source.frames(number[pair.episode], np.array([pair.goal]))
        judge = _judge_of(rules, np.array(states[pair.goal]))
        found.append(Task(pair.key, rules.start(states[pair.start]), goal, judge))
    return found


def _judge_of(rules: Rules, goal: State) -> Any:
    return lambda: rules.judge(goal)


def goals_of(manifest: Manifest, source: Source, rules: Rules) -> list[State]:
    """True states of the goals, for the numbers of a result alone."""
    number = {key: e for e, key in enumerate(source.keys)}
    return [np.array(states_of(source, rules, number[pair.episode])[pair.goal]) for pair in manifest.pairs]


def check_look(manifest: Manifest, tasks: Sequence[Task], source: Source, world: Restored, env: str) -> float:
    """Mean grey levels between recorded start frames and the world's own; UserError where they show another world."""
    number = {key: e for e, key in enumerate(source.keys)}
    differences = []
    for pair, task in list(zip(manifest.pairs, tasks, strict=True))[:LOOKED_AT]:
        (recorded,) = source.frames(number[pair.episode], np.array([pair.start]))
        differences.append(np.abs(recorded.astype(float) - world.restore(task.start)).mean())
    found = float(np.median(differences))
    if found > ALIKE:
        raise UserError(
            f"frames of {source.path} differ by {found:.0f} grey levels from what {env} shows at the same states; "
            f"give data collected in {env} as it is"
        )
    return found


def held_out(manifest: Manifest, source: Source, setting: Setting) -> tuple[bool | None, str]:
    """Whether the model was trained or chosen on any of the pairs' episodes; None where that cannot be told; and how.

    Other data are compared with the training set's episodes by content, wherever that set is still at hand: a set
    collected with the same seed has the same first episodes, whatever its fingerprint.
    """
    interface, keys = setting.model.interface, {pair.episode for pair in manifest.pairs}
    if source.fingerprint() == interface.fingerprint:
        seen = sum(part_of(interface.split_seed, key) != "test" for key in keys)
        what = f"{len(keys) - seen} of {len(keys)} episodes are of the model's own test split"
        return seen == 0, what
    training = trained_on(setting)
    other = f"other data than the model was trained on (fingerprint {source.fingerprint()})"
    if training is None:
        return None, f"{other}; whether they share episodes cannot be told, the training data are not at hand"
    parts = [episodes_of(part, interface.split_seed, training.keys) for part in ("train", "val")]
    seen = {content for _, content in Part(training, np.concatenate(parts)).contents()}
    own = np.array([e for e, key in enumerate(source.keys) if key in keys])
    shared = sum(content in seen for _, content in Part(source, own).contents())
    return shared == 0, f"{other}; {shared} of {len(keys)} episodes are among those it was trained or chosen on"

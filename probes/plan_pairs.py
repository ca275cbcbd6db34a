"""Pairs of start and goal from a data set: drawn or read from a manifest, checked, and made into tasks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.schema import Source, require_column
from lewm.datasets.split import episodes_of, part_of
from lewm.envs.predicates import Rules, State, angle_between
from lewm.envs.restored import Restored
from lewm.errors import UserError
from lewm.plan.evaluate import Task
from lewm.plan.manifest import Manifest, Mark, Pair, draw, mark_of, read
from lewm.plan.protocols import Protocol
from lewm.probes.ordinary import Part, trained_on
from lewm.probes.parts import measured_episodes
from lewm.probes.plan_shared import copies
from lewm.probes.setting import Setting

AUTO = "auto"
ALIKE = 4.0  # mean grey levels between a recorded frame and the world's own; compressed ones of this world differ by 2
LOOKED_AT = 8  # pairs whose frames are compared
APART = 0.1  # mean grey levels between the world's own frames at two states that can be told apart, at least
BESIDE = (-5, -1, 1, 5)  # rows from the start whose states its frame must not show better
ASTRAY = 1 / 8  # share of pairs whose frame another state may show better
STEPS = 8  # rows whose next states are compared
AMISS = 0.5  # of the recorded motion: the median error of a step, at most


def check_world(world: Restored, rules: Rules, env: str, source: Source) -> None:
    """UserError where a data set has no true states of the world, or frames of another size than it."""
    for name, size in rules.columns.items():
        size = len(world.world.state) if size is None else size
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
) -> tuple[Manifest, dict[str, Any]]:
    """A frozen sample, or one drawn now, the first `pairs` of it; and what a result says of the whole of it."""
    split_seed = setting.model.interface.split_seed
    if manifest is None:
        num = rule.pairs if pairs is None else pairs
        split = rule.split if split == AUTO else split
        drawn = draw_pairs(source, rules, env, rule, split, num, seed=setting.seed, split_seed=split_seed)
        return drawn, _about(drawn, True)
    found = read(manifest)
    lengths = dict(zip(source.keys, map(int, source.lengths), strict=True))
    data = {"fingerprint": source.fingerprint(), "lengths": lengths, "mark": marks_of(source, rules)}
    found.check(manifest, world=env, protocol=rule, **data)
    if split not in (AUTO, found.split):
        raise UserError(f"{manifest} was drawn from split {found.split}, not {split}; leave --split out")
    number = {key: e for e, key in enumerate(source.keys)}
    for i, pair in enumerate(found.pairs if rule.excludes else ()):
        states = states_of(source, rules, number[pair.episode])
        if (why := rules.reason(states[pair.start], states[pair.goal])) is not None:
            raise UserError(f"pair {i} of {manifest} is {why}, which protocol {rule.name} excludes; draw it again")
    about = _about(found, as_drawn(found, source, rules, rule))
    return found if pairs is None else found.first(pairs), about


def _about(found: Manifest, same: bool | None) -> dict[str, Any]:
    return {"checksum": found.checksum, "seed": found.seed, "split_seed": found.split_seed, "as_drawn": same}


def as_drawn(found: Manifest, source: Source, rules: Rules, rule: Protocol) -> bool | None:
    """Whether drawing with a manifest's own seeds gives its pairs; None where nothing can be drawn so."""
    seeds = {"seed": found.seed, "split_seed": found.split_seed}
    try:
        again = draw_pairs(source, rules, found.world, rule, found.split, len(found.pairs), **seeds)
    except UserError:
        return None
    return again.pairs == found.pairs and again.counts == found.counts


def marks_of(source: Source, rules: Rules) -> Mark:
    """Hashes of the states of a data set's pairs."""
    number = {key: e for e, key in enumerate(source.keys)}

    def mark(pair: Pair) -> str:
        states = states_of(source, rules, number[pair.episode])
        return mark_of(states[pair.start], states[pair.goal])

    return mark


def draw_pairs(
    source: Source, rules: Rules, env: str, rule: Protocol, split: str, num: int, *, seed: int, split_seed: int
) -> Manifest:
    """A sample of the part; UserError where there is no pair."""

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
        mark=marks_of(source, rules),
        seed=seed,
        world=env,
        fingerprint=source.fingerprint(),
        split=split,
        split_seed=split_seed,
        near=rule.near,
    )


def tasks_of(manifest: Manifest, source: Source, rules: Rules, *, goals: int = 1, frameskip: int = 1) -> list[Task]:
    """What is to be planned for: recorded start state, recorded goal frames, a judge that knows the goal's state.

    Several goal frames are a block apart, the goal the last of them. UserError where the first would be the start.
    """
    before = frameskip * np.arange(1 - goals, 1)
    if before[0] + manifest.offset <= 0:
        raise UserError(
            f"--goals {goals}: so many goal frames, {frameskip} steps apart, reach back to the start, "
            f"{manifest.offset} steps before the goal; give fewer"
        )
    number = {key: e for e, key in enumerate(source.keys)}
    found = []
    for pair in manifest.pairs:
        states = states_of(source, rules, number[pair.episode])
        frames = source.frames(number[pair.episode], pair.goal + before)
        judge = _judge_of(rules, np.array(states[pair.goal]))
        found.append(Task(pair.key, rules.start(states[pair.start]), frames, judge))
    return found


def _judge_of(rules: Rules, goal: State) -> Any:
    return lambda: rules.judge(goal)


def goals_of(manifest: Manifest, source: Source, rules: Rules) -> list[State]:
    """True states of the goals, for the numbers of a result alone."""
    number = {key: e for e, key in enumerate(source.keys)}
    return [np.array(states_of(source, rules, number[pair.episode])[pair.goal]) for pair in manifest.pairs]


def check_look(manifest: Manifest, source: Source, rules: Rules, world: Restored, env: str) -> float:
    """Mean grey levels between recorded start frames and the world's own at their states.

    UserError where the frames show another world, or are not those of their states: a frame must be nearer to the
    world's own at its state than at the states of other pairs and of rows beside it, where these look different.
    """
    number = {key: e for e, key in enumerate(source.keys)}
    looked = manifest.pairs[:LOOKED_AT]
    states = [states_of(source, rules, number[pair.episode]) for pair in looked]
    own = [
        world.restore(rules.start(rows[pair.start])).astype(float) for rows, pair in zip(states, looked, strict=True)
    ]
    differences, astray = [], 0
    for i, pair in enumerate(looked):
        (recorded,) = source.frames(number[pair.episode], np.array([pair.start]))
        beside = [pair.start + step for step in BESIDE if 0 <= pair.start + step < len(states[i])]
        others = own[:i] + own[i + 1 :] + [world.restore(rules.start(states[i][row])).astype(float) for row in beside]
        differences.append(_grey(recorded, own[i]))
        # What another renderer, or a codec, changes may look like a small step; so nearer states do not count.
        apart = max(APART, differences[-1] / 2)
        rivals = [_grey(recorded, other) for other in others if _grey(own[i], other) >= apart]
        astray += bool(rivals) and min(rivals) <= differences[-1]
    found = float(np.median(differences))
    if found > ALIKE:
        raise UserError(
            f"frames of {source.path} differ by {found:.0f} grey levels from what {env} shows at the same states; "
            f"give data collected in {env} as it is"
        )
    if astray > ASTRAY * len(looked):
        raise UserError(
            f"states of {source.path} do not fit its frames: {env} shows {astray} of {len(looked)} frames better at "
            "another state than at their own; give data whose states and frames are of the same rows"
        )
    return found


def check_steps(manifest: Manifest, source: Source, rules: Rules, world: Restored, env: str) -> float | None:
    """Median error of a step from recorded states under recorded actions, as a share of the recorded motion.

    UserError where these lead elsewhere: the actions mean something else, are of other rows, or what can be set is not
    what the world moves. Single rows may differ (a contact that is not part of a state). None where nothing moves.
    """
    number = {key: e for e, key in enumerate(source.keys)}
    episodes = list(dict.fromkeys(number[pair.episode] for pair in manifest.pairs))[:STEPS]
    shares = []
    for episode in episodes:
        states, actions = states_of(source, rules, episode), source.actions(episode)
        for row in _moving(rules, states, actions, -(-STEPS // len(episodes))):
            world.restore(states[row])
            error = motion(rules, states[row + 1], world.advance(actions[row]))
            shares.append(error / motion(rules, states[row], states[row + 1]))
    if not shares:
        return None
    if not (found := float(np.median(shares))) <= AMISS:
        raise UserError(
            f"states and actions of {source.path} do not lead to its next states in {env}: the median error of "
            f"{len(shares)} steps is {found:.2g} times the motion; give data of {env} with its own actions, and a "
            "world whose state, once set, is what moves"
        )
    return found


def _moving(rules: Rules, states: Float[np.ndarray, "t x"], actions: Float[np.ndarray, "t a"], num: int) -> list[int]:
    """Up to `num` rows over an episode, with a valid action, and no less motion than the median row that moves."""
    moved = np.array([motion(rules, a, b) for a, b in pairwise(states)])
    moved[~np.isfinite(actions[:-1]).all(axis=1) | ~np.isfinite(moved)] = 0
    if not moved.any():
        return []
    rows = np.flatnonzero(moved >= np.median(moved[moved > 0]))
    return rows[np.unique(np.linspace(0, len(rows) - 1, num).round().astype(int))].tolist()


def motion(rules: Rules, a: State, b: State) -> float:
    """Euclidean distance of two states over all numbers, angles by the shortest way round."""
    change = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    for i in rules.angles:
        change[i] = angle_between(b[i], a[i])
    return float(np.linalg.norm(change))


def _grey(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b).mean())


def held_out(manifest: Manifest, source: Source, setting: Setting) -> tuple[bool | None, str]:
    """Whether the model was trained or chosen on any of the pairs' episodes; None where that cannot be told; and how.

    Episodes are compared with those that it was trained or chosen on, wherever that data set is still at hand, by their
    content and by their actions: a set collected with the same seed has the same first episodes, whatever its
    fingerprint, and a copy that was coded, resized or cut is a copy.
    """
    interface, keys = setting.model.interface, {pair.episode for pair in manifest.pairs}
    if not interface.fingerprint:
        return None, "what the model was trained on is not known: its weights came from elsewhere"
    same = source.fingerprint() == interface.fingerprint
    training = source if same else trained_on(setting)
    what = f"other data than the model was trained on (fingerprint {source.fingerprint()})"
    if same:
        own = sum(part_of(interface.split_seed, key) == "test" for key in keys)
        what = f"{own} of {len(keys)} episodes are of the model's own test split"
        if own < len(keys):
            return False, what
    if training is None:
        return None, f"{what}; whether they share episodes cannot be told, the training data are not at hand"
    num, unknown = _shared(source, keys, training, interface.split_seed)
    what = f"{what}; {num} of {len(keys)} episodes are among those it was trained or chosen on"
    if unknown and not num:
        return None, f"{what}, of {unknown} more their actions cannot tell"
    return num == 0, what


def _shared(source: Source, keys: set[str], training: Source, split_seed: int) -> tuple[int, int]:
    """How many episodes are among those of training and validation, and of how many this cannot be told."""
    own = np.array([e for e, key in enumerate(source.keys) if key in keys])
    theirs = np.concatenate([episodes_of(part, split_seed, training.keys) for part in ("train", "val")])
    # Of the model's own data this would be every first frame read to learn nothing: keys are their own.
    seen = set() if source is training else {content for _, content in Part(training, theirs).contents()}
    by_content = [content in seen for _, content in Part(source, own).contents()]
    if source.action_dim != training.action_dim:
        return sum(by_content), 0
    by_actions = copies(map(source.actions, own.tolist()), map(training.actions, theirs.tolist()))
    both = [a or b for a, b in zip(by_content, by_actions, strict=True)]
    return sum(map(bool, both)), sum(b is None for b in both)

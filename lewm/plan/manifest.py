"""Pairs of start and goal: drawn as a pure function of seed and episode key, frozen in a file that can be checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lewm.errors import UserError
from lewm.paths import written_atomically
from lewm.plan.protocols import Protocol
from lewm.progress import track

FORMAT = 2  # 1 had no marks
Reasons = Callable[[int, int], Sequence[str | None]]


class Pair(NamedTuple):
    """Rows of one episode: where a rollout starts, and where it is to arrive."""

    episode: str  # the episode's key
    start: int
    goal: int

    @property
    def key(self) -> str:
        """What the planner's noise is keyed by."""
        return f"{self.episode}:{self.start}"


Mark = Callable[[Pair], str]


def mark_of(start: Float[np.ndarray, " x"], goal: Float[np.ndarray, " x"]) -> str:
    """A hash of a pair's true states: keys, actions and frames may be alike where these are not."""
    states = np.stack([start, goal]).astype("<f8")
    return blake2b(states.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A frozen sample; the pairs come in the order of a hash, so that the first n are the sample of n.

    `counts` says what there was to draw from: `episodes`, `too_short` of them, `candidates` (pairs `offset` rows apart
    in the others), how many of these ask for nothing by `reasons`, and `left` episodes with a pair that may be drawn.
    `marks` are hashes of the states at each pair's start and goal. `near` is what a user gave for solved, by
    which pairs were left out; None where the world has a rule.
    """

    world: str
    protocol: str
    fingerprint: str  # of the data
    split: str
    split_seed: int
    seed: int
    offset: int
    pairs: tuple[Pair, ...]
    marks: tuple[str, ...]
    counts: dict[str, Any]
    near: float | None = None

    @property
    def checksum(self) -> str:
        """sha256 of everything in it."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def first(self, num: int) -> Manifest:
        """Its first pairs; UserError where it has fewer."""
        if num > len(self.pairs):
            raise UserError(f"the manifest has {len(self.pairs)} pairs, --pairs asks for {num}; ask for fewer")
        return replace(self, pairs=self.pairs[:num], marks=self.marks[:num])

    def write(self, path: str | Path) -> None:
        """Write it whole or not at all."""
        with written_atomically(path) as temporary:
            text = json.dumps(self._content() | {"checksum": self.checksum}, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    def check(
        self,
        path: object,
        *,
        world: str,
        protocol: Protocol,
        fingerprint: str,
        lengths: dict[str, int],
        mark: Mark,
    ) -> None:
        """UserError where it is of another world, protocol, offset, data or states, or names rows not there."""
        if self.world != world:
            raise UserError(f"{path} is a manifest for {self.world}, not for {world}; give --env {self.world}")
        if self.protocol != protocol.name:
            raise UserError(
                f"{path} is a manifest for protocol {self.protocol}, not {protocol.name}; "
                f"give --protocol {self.protocol} or another manifest"
            )
        if self.fingerprint != fingerprint:
            raise UserError(
                f"{path} is a manifest for other data: their fingerprint is {self.fingerprint}, that of --data "
                f"{fingerprint}; give the data it was drawn from"
            )
        if self.offset != protocol.offset:
            raise UserError(f"{path} has goals {self.offset} steps ahead, not {protocol.offset}; give --offset")
        if self.near != protocol.near:
            raise UserError(
                f"{path} was drawn with --near {self.near}, not {protocol.near}; give that or draw it again"
            )
        for pair in self.pairs:
            if pair.goal - pair.start != self.offset or not 0 <= pair.start < pair.goal < lengths.get(pair.episode, 0):
                raise UserError(f"{path} names rows {pair.start} and {pair.goal} of episode {pair.episode}, not there")
        keys = [pair.episode for pair in self.pairs]
        if len(set(self.pairs)) < len(keys) or (protocol.one_an_episode and len(set(keys)) < len(keys)):
            raise UserError(f"{path} has a pair or an episode twice, which protocol {protocol.name} does not allow")
        for i, (pair, own) in enumerate(zip(self.pairs, self.marks, strict=True)):
            if mark(pair) != own:
                raise UserError(
                    f"{path} is a manifest for other data: the states of pair {i} (episode {pair.episode}) are not "
                    "those it was drawn with; give the data it was drawn from"
                )

    def _content(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self), "pairs": [pair._asdict() for pair in self.pairs]}


def read(path: str | Path) -> Manifest:
    """A manifest from its file; UserError for one that is missing, damaged or of a later version."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such manifest: {path}; --write_manifest {path} draws one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, checksum = content.pop("format"), content.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest of pairs; draw one with --write_manifest") from error
    if version != FORMAT:
        raise UserError(
            f"{path} is a manifest of format {version}, this version of lewm reads format {FORMAT}; draw it again"
        )
    try:
        pairs = tuple(Pair(str(p["episode"]), int(p["start"]), int(p["goal"])) for p in content.pop("pairs"))
        manifest = Manifest(**content | {"pairs": pairs, "marks": tuple(map(str, content["marks"]))})
        whole = checksum == manifest.checksum and {f.name for f in fields(Manifest)} == {*content, "pairs"}
        whole = whole and len(pairs) == len(manifest.marks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is a damaged manifest; draw it again with --write_manifest") from error
    if not whole:
        raise UserError(f"{path} was changed after it was written: its checksum differs; draw it again")
    return manifest


def draw(
    protocol: Protocol,
    num: int,
    *,
    episodes: Sequence[int],
    keys: Sequence[str],
    lengths: Sequence[int],
    reasons: Reasons,
    mark: Mark,
    seed: int,
    **about: Any,
) -> Manifest:
    """At most `num` pairs under a protocol: fewer where there are fewer; UserError where there is none.

    Every candidate has a random number of its own, a pure function of (seed, episode key, start row); those with the
    least are drawn. So a pair's chance does not depend on which other episodes there are, nor on their order.

    Args:
        protocol: see there.
        num: pairs wanted.
        episodes: numbers of the episodes to draw from.
        keys: of all episodes, by number.
        lengths: rows of all episodes, by number.
        reasons: for an episode's number and an offset, why each start row's pair is to be excluded; None where not.
        mark: for a pair, a hash of its states.
        seed: of the draw.
        about: the manifest's other fields.
    """
    counts: dict[str, Any] = {"episodes": len(episodes), "too_short": 0, "candidates": 0, "reasons": {}, "left": 0}
    found: list[tuple[float, Pair]] = []
    for episode in track(episodes, "pairs"):
        rows = int(lengths[episode]) - protocol.offset
        if rows <= 0:
            counts["too_short"] += 1
            continue
        counts["candidates"] += rows
        why = list(reasons(episode, protocol.offset))
        assert len(why) == rows, "one reason, or None, for each start row"
        for reason in filter(None, why):
            counts["reasons"][reason] = counts["reasons"].get(reason, 0) + 1
        key, numbers = keys[episode], _numbers(seed, keys[episode], rows)
        left = [row for row in range(rows) if not (protocol.excludes and why[row])]
        counts["left"] += bool(left)
        drawn = sorted((float(numbers[row]), Pair(key, row, row + protocol.offset)) for row in left)
        # Of an episode that gives one pair that of the least number, but its rank among episodes is drawn anew: the
        # least of many numbers would favour long episodes.
        found += [(_rank(seed, key), drawn[0][1])] if drawn and protocol.one_an_episode else drawn
    if not found:
        raise UserError(_nothing(protocol, counts))
    pairs = tuple(pair for _, pair in sorted(found)[:num])
    about |= {"marks": tuple(map(mark, pairs)), "counts": counts}
    return Manifest(protocol=protocol.name, seed=seed, offset=protocol.offset, pairs=pairs, **about)


def _numbers(seed: int, key: str, rows: int) -> np.ndarray:
    """A uniform number for each row of an episode; a longer episode begins with those of a shorter one."""
    return np.random.Generator(np.random.Philox(key=_hash(f"rows:{seed}:{key}", 16))).random(rows)


def _rank(seed: int, key: str) -> float:
    return _hash(f"episode:{seed}:{key}", 8) / 2**64


def _hash(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big")


def _nothing(protocol: Protocol, counts: dict[str, Any]) -> str:
    reasons = "".join(f", {count} {reason}" for reason, count in counts["reasons"].items())
    return (
        f"no pair of rows {protocol.offset} apart to plan for in {counts['episodes']} episodes: {counts['too_short']} "
        f"too short, {counts['candidates']} candidates{reasons}; give longer or more episodes (--split all), or "
        "another --offset"
    )

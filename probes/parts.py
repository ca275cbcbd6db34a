"""Which episodes train a probe, choose its settings, and give its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Int

from lewm.datasets.schema import Source
from lewm.datasets.split import episodes_of
from lewm.errors import UserError

SPLITS = ("train", "val", "test", "all")
FEWEST = 3  # episodes to measure on
FOLDS = 5  # of `all`


@dataclass(frozen=True)
class Parts:
    """Episode numbers that fit a probe, choose its settings, and give its numbers; disjoint."""

    train: Int[np.ndarray, " train"]
    val: Int[np.ndarray, " val"]
    test: Int[np.ndarray, " test"]


@dataclass(frozen=True)
class Plan:
    """One or several folds, no episode tested twice, and in words where their parts are from."""

    folds: list[Parts]
    how: str

    @property
    def test(self) -> Int[np.ndarray, " test"]:
        """Episodes that give the numbers."""
        return np.sort(np.concatenate([fold.test for fold in self.folds]))

    @property
    def groups(self) -> list[Int[np.ndarray, " m"]]:
        """Disjoint groups of episodes, of each of which frames are chosen: the three parts, or all folds together."""
        fold = self.folds[0]
        return [fold.train, fold.val, fold.test] if len(self.folds) == 1 else [self.test]


def plan(source: Source, split: str, split_seed: int, seed: int) -> Plan:
    """The folds for numbers on `split`; UserError where a part is empty or there is too little to measure on."""
    train, val, test = (episodes_of(part, split_seed, source.keys) for part in ("train", "val", "test"))
    if split == "test":
        how = "trained on the model's train episodes, chosen on val, measured on test"
    elif split == "val":
        how = "trained on four fifths of the model's train episodes, chosen on the other fifth, measured on val"
        train, val, test = *grouped(train, source.keys, (0.8, 0.2), seed), val
    elif split == "train":
        how = "60/20/20 % of the model's train episodes: it has seen all of them"
        train, val, test = grouped(train, source.keys, (0.6, 0.2, 0.2), seed)
    elif split == "all":
        return all_folds(source, seed)
    else:
        raise UserError(f"--split is {split!r}; one of {', '.join(SPLITS)}")
    for name, episodes in (("train", train), ("val", val), ("test", test)):
        refuse_empty(episodes, name, source, split_seed)
    if len(test) < FEWEST:
        raise UserError(
            f"{len(test)} episodes of {source.path} to measure on (split {split}); at least {FEWEST} are needed: give "
            "more episodes, or use every one with --split all"
        )
    return Plan([Parts(train, val, test)], how)


def all_folds(source: Source, seed: int) -> Plan:
    """Every episode measured once, by probes fitted on other episodes, their settings chosen on the next fold."""
    num = min(FOLDS, len(source.keys))
    if num < FEWEST:
        raise UserError(f"{source.path} has {len(source.keys)} episodes; folds need at least {FEWEST}")
    parts = grouped(np.arange(len(source.keys)), source.keys, (1 / num,) * num, seed)
    folds = [
        Parts(np.sort(np.concatenate([parts[(i + j) % num] for j in range(2, num)])), parts[(i + 1) % num], parts[i])
        for i in range(num)
    ]
    how = (
        f"{num} folds of all episodes, whatever the model was trained on: it may have seen those measured on; each "
        "episode is measured by probes fitted on other folds"
    )
    return Plan(folds, how)


def measured_episodes(source: Source, split: str, split_seed: int) -> Int[np.ndarray, " n"]:
    """Episodes of the part that an evaluator measures on; UserError where there are none."""
    if split not in SPLITS:
        raise UserError(f"--split is {split!r}; one of {', '.join(SPLITS)}")
    episodes = episodes_of(split, split_seed, source.keys)
    refuse_empty(episodes, split, source, split_seed)
    return episodes


def refuse_empty(episodes: np.ndarray, part: str, source: Source, split_seed: int) -> None:
    """UserError naming a part without episodes."""
    if len(episodes) == 0:
        raise UserError(
            f"the {part} part of {source.path} is empty ({len(source.keys)} episodes, split seed {split_seed}); "
            "give more episodes, or use every one with --split all"
        )


def grouped(
    episodes: Int[np.ndarray, " n"], keys: list[str], shares: tuple[float, ...], seed: int
) -> list[Int[np.ndarray, " m"]]:
    """Cut episodes into shares, in the order of a hash of their keys; each part in stored order."""
    hashes = [blake2b(f"probe:{seed}:{keys[e]}".encode(), digest_size=8).digest() for e in episodes]
    order = episodes[sorted(range(len(episodes)), key=hashes.__getitem__)]
    cuts = np.round(np.cumsum(shares)[:-1] * len(order)).astype(int)
    return [np.sort(part) for part in np.split(order, cuts)]

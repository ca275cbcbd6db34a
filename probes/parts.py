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


@dataclass(frozen=True)
class Parts:
    """Episode numbers of the probe's own three parts, disjoint, and in words where they are from."""

    train: Int[np.ndarray, " train"]
    val: Int[np.ndarray, " val"]
    test: Int[np.ndarray, " test"]
    how: str


def parts_of(source: Source, split: str, split_seed: int, seed: int) -> Parts:
    """The probe's parts for numbers on `split`; UserError where one of them is empty."""
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
        how = "60/20/20 % of all episodes, whatever the model was trained on: it may have seen those measured on"
        train, val, test = grouped(np.arange(len(source.keys)), source.keys, (0.6, 0.2, 0.2), seed)
    else:
        raise UserError(f"--split is {split!r}; one of {', '.join(SPLITS)}")
    for name, episodes in (("train", train), ("val", val), ("test", test)):
        refuse_empty(episodes, name, source, split_seed)
    return Parts(train, val, test, how)


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

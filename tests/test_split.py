"""The split by episode."""

import numpy as np
import pytest

from lewm.datasets.split import PARTS, episodes_of, part_of

KEYS = [f"file:{i}" for i in range(5000)]


def test_parts_are_disjoint_complete_and_eighty_ten_ten():
    parts = [episodes_of(part, 3, KEYS) for part in PARTS]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(KEYS)))
    assert [len(p) / len(KEYS) for p in parts] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert len(episodes_of("all", 3, KEYS)) == len(KEYS)


def test_an_episode_keeps_its_part_when_others_are_added():
    few = {KEYS[e] for e in episodes_of("test", 3, KEYS[:1000])}
    many = {KEYS[e] for e in episodes_of("test", 3, KEYS)}
    assert few == many & set(KEYS[:1000])


def test_the_split_is_the_same_on_every_machine_and_differs_between_seeds():
    assert [part_of(0, str(k)) for k in range(12)] == PINNED
    assert [part_of(1, k) for k in KEYS] != [part_of(0, k) for k in KEYS]


PINNED = ["val", "test", "val", "train", "train", "train", "val", "train", "train", "train", "train", "train"]


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="unknown part"):
        episodes_of("dev", 0, KEYS)

"""Split by episode, never by clip: neighbouring clips share frames, so a split over clips leaks."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

PARTS = ("train", "val", "test")


def part_of(seed: int, key: str) -> str:
    """Part of one episode: 80 % train, 10 % val, 10 % test, a pure function of the seed and the episode's key."""
    digest = blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    u = int.from_bytes(digest, "big") / 2**64
    return "train" if u < 0.8 else "val" if u < 0.9 else "test"


def episodes_of(part: str, seed: int, keys: list[str]) -> np.ndarray:
    """Numbers of the episodes in `part` ("train", "val", "test" or "all"), in stored order."""
    if part == "all":
        return np.arange(len(keys), dtype=np.int64)
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; one of {', '.join(PARTS)}, all")
    return np.array([e for e, key in enumerate(keys) if part_of(seed, key) == part], dtype=np.int64)

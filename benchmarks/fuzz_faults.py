"""Faults of files: what a bad disk, a broken copy and a stranger do to them; `fuzz.py` says what becomes of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from lewm.datasets.manifest import MANIFEST
from lewm.datasets.tar_index import BLOCK
from lewm.datasets.tar_shards import ShardSource

HUGE = (2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def mutate(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """One fault, by name, and the bytes that have it."""
    faults: list[Callable[[np.random.Generator, bytearray], bytearray]] = [flip, flips, cut, zero, swap, insert, huge]
    fault = faults[int(rng.integers(len(faults)))]
    return fault.__name__, bytes(fault(rng, bytearray(data)))


def _at(rng: np.random.Generator, x: bytearray, room: int = 1) -> int:
    return int(rng.integers(max(1, len(x) - room)))


def flip(rng: np.random.Generator, x: bytearray) -> bytearray:
    """One bit."""
    if x:
        x[_at(rng, x)] ^= 1 << int(rng.integers(8))
    return x


def flips(rng: np.random.Generator, x: bytearray) -> bytearray:
    """A few bytes, anywhere."""
    for _ in range(int(rng.integers(2, 9))):
        x[_at(rng, x)] = int(rng.integers(256))
    return x


def cut(rng: np.random.Generator, x: bytearray) -> bytearray:
    """The end is missing."""
    return x[: _at(rng, x)]


def zero(rng: np.random.Generator, x: bytearray) -> bytearray:
    """A range was never written."""
    at, n = _at(rng, x), int(2 ** rng.uniform(0, 12))
    n = min(n, len(x) - at)
    x[at : at + n] = bytes(n)
    return x


def swap(rng: np.random.Generator, x: bytearray) -> bytearray:
    """Two blocks changed places."""
    n = min(int(2 ** rng.uniform(0, 10)), len(x) // 2)
    a, b = sorted(int(i) for i in rng.integers(0, len(x) - n, 2))
    if b - a >= n:
        x[a : a + n], x[b : b + n] = x[b : b + n], x[a : a + n]
    return x


def insert(rng: np.random.Generator, x: bytearray) -> bytearray:
    """Bytes that do not belong there."""
    at = _at(rng, x)
    return x[:at] + rng.bytes(int(rng.integers(1, 64))) + x[at:]


def huge(rng: np.random.Generator, x: bytearray) -> bytearray:
    """A length no file has: in place of digits, or of a binary integer."""
    digits = [m.span() for m in re.finditer(rb"(?<![\d.])\d{1,11}(?![\d.])", bytes(x))]
    if digits and rng.integers(2):
        a, b = digits[int(rng.integers(len(digits)))]
        return x[:a] + (b"7" * (b - a) if rng.integers(2) else b"9999999999") + x[b:]
    size = 4 * int(rng.integers(1, 3))
    number = HUGE[int(rng.integers(len(HUGE)))] % 256**size
    at = _at(rng, x, size)
    x[at : at + size] = number.to_bytes(size, "little" if rng.integers(4) else "big")
    return x


def in_file(pattern: str, rng: np.random.Generator, folder: Path) -> str:
    """A fault in one of the files of that name; times of change do not always tell."""
    files = sorted(p for p in folder.rglob(pattern) if p.is_file())
    file = files[int(rng.integers(len(files)))]
    name, content = mutate(rng, file.read_bytes())
    put(file, content, keep_time=bool(rng.integers(2)))
    return name


def in_frames(rng: np.random.Generator, folder: Path) -> str:
    """A fault among the bytes of an episode's frames; its size stays, as a shard of another is refused unread."""
    source = ShardSource(folder)
    tar, members = source.located(int(rng.integers(len(source.lengths))))
    member = next(m for ext, m in members.items() if ext.startswith("frames"))
    whole = tar.read_bytes()
    name, content = mutate(rng, whole[member.offset : member.offset + member.size])
    content = content[: member.size].ljust(member.size, b"\0")
    put(tar, whole[: member.offset] + content + whole[member.offset + member.size :], keep_time=True)
    return name


def in_structure(rng: np.random.Generator, folder: Path) -> str:
    """A fault in an HDF5 file, mostly where it says what lies where, and not among pixels."""
    (file,) = folder.glob("*.h5")
    content = file.read_bytes()
    with h5py.File(file, "r") as opened:
        pixels = cast("h5py.Dataset", opened["pixels"])
        low, size = pixels.id.get_offset() or 0, pixels.id.get_storage_size()
    low, high = [(0, low), (low + size, len(content)), (0, len(content))][int(rng.integers(3))]
    if low >= high:  # pixels in chunks lie anywhere
        low, high = 0, len(content)
    at = int(rng.integers(low, high))
    name, part = mutate(rng, content[at : at + 1024])
    part = part[:1024].ljust(min(1024, len(content) - at), b"\0")  # what follows stays where it was
    put(file, content[:at] + part + content[at + 1024 :], keep_time=True)
    return name


def forged(rng: np.random.Generator, folder: Path) -> str:
    """A fault anywhere in a shard, by one who makes index, sizes and checksums anew."""
    tar = sorted(folder.glob("*.tar"))[int(rng.integers(2))]
    content = tar.read_bytes()
    # Headers and the heads of members are what readers decide by.
    heads = [i for i in range(0, len(content), BLOCK) if content[i + 257 : i + 262] == b"ustar"]
    low = heads[int(rng.integers(len(heads)))]
    name, part = mutate(rng, content[low : low + 2 * BLOCK])
    content = bytearray(content[:low] + part + content[low + 2 * BLOCK :])
    content[low + 148 : low + 156] = b" " * 8
    content[low + 148 : low + 156] = b"%06o\0 " % sum(content[low : low + BLOCK])
    put_with_checksums(tar, bytes(content))
    return name


def put_with_checksums(tar: Path, content: bytes) -> None:
    """A shard of other bytes, by one who makes manifest and checksums anew and removes the index."""
    folder = tar.parent
    tar.write_bytes(content)
    tar.with_suffix(".idx.npz").unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["checksum"]
    shard = next(s for s in manifest["shards"] if s["file"] == tar.name)
    del shard["index"]
    shard |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def older_manifest(rng: np.random.Generator, folder: Path) -> str:
    """A fault in a manifest that has no checksum."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["checksum"]
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return in_file(MANIFEST, rng, folder)


def put(file: Path, content: bytes, *, keep_time: bool) -> None:
    """Write bytes; with `keep_time` as a bad disk does."""
    before = file.stat()
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

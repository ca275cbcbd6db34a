"""Large sound files, and faults that declare or hold far more than their part; `fuzz_large.py` measures the memory."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import zstandard
from fuzz_faults import forged, in_file, in_frames, older_manifest, put, put_with_checksums
from fuzz_files import Facts, write_clip

from lewm.datasets import shard_writer
from lewm.datasets.manifest import MANIFEST
from lewm.datasets.pixels import HEADER, PNG_MAGIC, Codec, encode_frame
from lewm.datasets.schema import open_source
from lewm.datasets.tar_shards import ShardSource

EPISODES, ROWS, SIDE = 2, 160, 224
PART = ROWS * SIDE * SIDE * 3  # bytes of an episode's frames: 23 MiB
CLIP_ROWS, BOMB_ROWS = 60, 4
SWELLS = 2**27  # bytes that a bomb becomes


# What is written


def scene(rows: int, seed: int) -> np.ndarray:
    """A square that moves over a plain floor: (rows, h, w, c)."""
    frames = np.full((rows, SIDE, SIDE, 3), 40 * seed, dtype=np.uint8)
    for t, frame in enumerate(frames):
        at = t % (SIDE - 20)
        frame[at : at + 20, 30:50] = 200
    return frames


def write_shards(folder: Path, codec: str, rows: int = ROWS) -> None:
    """Two shards of one episode each."""
    with shard_writer.EpisodeWriter(folder, codec=codec, shard_bytes=1) as writer:
        for e in range(EPISODES):
            writer.add(scene(rows, e), {"action": np.full((rows, 2), e, np.float32)}, key=f"key{e}")


def write_hdf5(folder: Path, rows_of_chunk: int) -> None:
    """One flat file, compressed in chunks of so many frames."""
    with h5py.File(folder / "flat.h5", "w") as file:
        pixels = np.concatenate([scene(ROWS, e) for e in range(EPISODES)])
        file.create_dataset("pixels", data=pixels, chunks=(rows_of_chunk, *pixels.shape[1:]), compression="gzip")
        actions = np.zeros((len(pixels), 2), np.float32)
        file.create_dataset("action", data=actions, chunks=(64, 2), compression="gzip")
        file["ep_len"], file["ep_offset"] = np.full(EPISODES, ROWS), np.arange(EPISODES) * ROWS


def write_clips(folder: Path) -> None:
    """One file of two trials of three clips."""
    with h5py.File(folder / "clips.h5", "w") as file:
        shape = (2, 3, CLIP_ROWS, SIDE, SIDE, 3)
        pixels = file.create_dataset("pixels", shape, np.uint8, chunks=(1, 1, 1, *shape[3:]), compression="gzip")
        for i, j in np.ndindex(2, 3):
            pixels[i, j] = _changed(scene(CLIP_ROWS, i), j)
        file["action"] = np.zeros((*shape[:3], 2), np.float32)
        file["perturb_step"], file["kind"] = np.full(2, 5), np.array([b"unperturbed", b"visual", b"physical"])


def write_clip_folder(folder: Path, format: str) -> None:
    """One trial of two clips."""
    trial = folder / "trial_0"
    trial.mkdir()
    for j, kind in enumerate(("unperturbed", "visual")):
        write_clip(_changed(scene(CLIP_ROWS, 1), j), trial / kind, format)
    np.save(trial / "actions.npy", np.zeros((CLIP_ROWS, 2), np.float32))
    (trial / "event.json").write_text('{"perturb_step": 5}')


def _changed(frames: np.ndarray, version: int) -> np.ndarray:
    frames[5:, :4, : 4 * version] = 255
    return frames


# What is read


def read_source(path: Path, **options: Any) -> Facts:
    """A data set, one whole episode at a time, of which only checksums are kept."""
    source = ShardSource(path, **options) if options else open_source(path)
    facts: Facts = {"keys": source.keys, "lengths": source.lengths.tolist(), "columns": sorted(source.columns)}
    for e in range(len(source.lengths)):
        facts[f"frames {e}"] = zlib.crc32(source.frames(e, np.arange(source.lengths[e])))
        facts[f"actions {e}"] = float(source.actions(e)[:-1].sum(dtype=float))
    return facts


def read_clips(path: Path) -> Facts:
    """Clips, one trial at a time, of which only checksums are kept."""
    from lewm.probes.clip_folder import read_clip_folder
    from lewm.probes.clip_reader import read_clip_file

    trials = read_clip_folder(path, 1, 99) if path.is_dir() else read_clip_file(path, 1, 99)
    facts: Facts = {"kinds": sorted(trials.natures)}
    for i, trial in enumerate(trials.each):
        facts[f"plain {i}"] = zlib.crc32(trial.plain.pixels)
        for kind, version in trial.versions.items():
            facts[f"{kind} {i}"] = [zlib.crc32(version.clip.pixels), version.event]
            del version
        del trial  # before the next is read
    return facts


# What is done to it


def any_of(*faults: Callable[[np.random.Generator, Path], str]) -> Callable[[np.random.Generator, Path], str]:
    """One of several faults."""
    return lambda rng, folder: faults[int(rng.integers(len(faults)))](rng, folder)


def in_shards(rng: np.random.Generator, folder: Path) -> str:
    """A fault in any file of a folder of shards, checksums remade or not."""
    faults = (in_frames, forged, lambda *given: in_file("*.tar", *given), lambda *given: in_file("*.npz", *given))
    return any_of(*faults, giant_manifest, giant_array)(rng, folder)


def giant_manifest(rng: np.random.Generator, folder: Path) -> str:
    """A number of a manifest without checksum becomes giant; or another fault in it."""
    if rng.integers(3) == 0:
        return older_manifest(rng, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["checksum"]
    shard, by = manifest["shards"][int(rng.integers(EPISODES))], int(10 ** rng.integers(1, 10))
    places = [(manifest["frame_shape"], int(rng.integers(3))), (shard["lengths"], 0), (shard, "bytes")]
    places += [(manifest["columns"]["action"]["shape"], 0), (shard, "episodes")]
    where, at = places[int(rng.integers(len(places)))]
    where[at] *= by  # type: ignore[index]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return f"giant {at}"


def giant_array(rng: np.random.Generator, folder: Path) -> str:
    """An array or a container of a shard declares more than it holds; checksums, and perhaps the manifest, agree."""
    source = ShardSource(folder)
    tar, members = source.located(int(rng.integers(EPISODES)))
    ext = list(members)[int(rng.integers(len(members)))]
    content, m = bytearray(tar.read_bytes()), members[ext]
    if ext == "frames.lwf":
        at = m.offset + 4 + 4 * int(rng.integers(5))
        content[at : at + 4] = struct.pack("<I", int(2 ** rng.integers(8, 32)))
    else:
        head = bytes(content[m.offset : m.offset + 128])
        digits = head.find(b"(") + 1
        content[m.offset + digits : m.offset + digits + 3] = b"999"
    put_with_checksums(tar, bytes(content))
    return f"giant {ext}"


def giant_dimension(rng: np.random.Generator, folder: Path) -> str:
    """Where an HDF5 file tells a dimension or a size, another number stands."""
    (file,) = folder.glob("*.h5")
    content = bytearray(file.read_bytes())
    known = (EPISODES * ROWS, SIDE, CLIP_ROWS, SIDE * SIDE * 3, 2, 3)
    told = struct.pack("<Q", known[int(rng.integers(len(known)))])
    places = [match.start() for match in re.finditer(re.escape(told), bytes(content))]
    if not places:
        return in_file("*.h5", rng, folder)
    at = places[int(rng.integers(min(len(places), 40)))]
    content[at : at + 8] = struct.pack("<Q", int(2 ** rng.integers(9, 63)))
    put(file, bytes(content), keep_time=True)
    return "giant dimension"


def bomb_in_frames(rng: np.random.Generator, folder: Path) -> str:
    """Shards written anew, sound but for one frame that declares or becomes far more than it may."""
    codec: Codec = ShardSource(folder).codec  # type: ignore[assignment]
    bombs = bombs_of(codec)
    name = sorted(bombs)[int(rng.integers(len(bombs)))]
    real = shard_writer.pack

    def pack(frames: np.ndarray, codec: Codec) -> bytes:
        packed = real(frames, codec)
        start = HEADER.size + 8 * (len(frames) + 1)
        table = np.frombuffer(packed[HEADER.size : start], "<u8")
        blobs = [packed[a:b] for a, b in pairwise(table.tolist())]
        blobs[int(rng.integers(len(blobs)))] = bombs[name]
        offsets = start + np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype("<u8")
        return packed[: HEADER.size] + offsets.tobytes() + b"".join(blobs)

    for path in folder.iterdir():
        path.unlink()
    with (
        mock.patch.object(shard_writer, "pack", pack),
        mock.patch.object(shard_writer, "fingerprint", return_value="x"),
    ):
        write_shards(folder, codec, BOMB_ROWS)
    return f"bomb, {name}"


@cache
def bombs_of(codec: Codec) -> dict[str, bytes]:
    """Small blobs by what they do."""
    frame, zeros = np.zeros((SIDE, SIDE, 3), np.uint8), bytes(SWELLS)
    good = encode_frame(frame, codec)
    if codec == "zstd":
        checked = zstandard.ZstdCompressor(write_checksum=True)
        untold = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
        lies = bytearray(good)  # a content size of four bytes follows the descriptor
        return {
            "that size told": checked.compress(zeros),
            "size untold": untold.compress(zeros),
            "behind a good one": good + checked.compress(zeros),
            "another size told": bytes(lies[:5]) + struct.pack("<I", 2**31) + bytes(lies[9:]),
        }
    if codec == "zlib":
        return {"that size": zlib.compress(zeros, 1), "behind a good one": good + zlib.compress(zeros, 1)}
    chunks = {"larger pixels": (b"IDAT", zeros), "swelling text": (b"zTXt", b"k\0\0" + zlib.compress(zeros, 9))}
    wrong = {f"{side} declared": png(side, side, zlib.compress(bytes(99))) for side in (8_000, 60_000)}
    text = png(SIDE, SIDE, zlib.compress(bytes(SIDE * (3 * SIDE + 1))), chunks["swelling text"])
    return wrong | {"larger pixels": png(SIDE, SIDE, zlib.compress(zeros)), "swelling text": text}


def png(height: int, width: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG with right checksums, whatever it says."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b"")]
    return PNG_MAGIC + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def bomb_in_images(rng: np.random.Generator, folder: Path) -> str:
    """One image, or all of a clip, declare far more pixels or hold swelling chunks."""
    bombs = bombs_of("png")
    name = sorted(bombs)[int(rng.integers(len(bombs)))]
    files = sorted(folder.rglob("*.png"))
    for file in [files[int(rng.integers(len(files)))]] if rng.integers(2) else files:
        file.write_bytes(bombs[name])
    return f"bomb, {name}"


def giant_actions(rng: np.random.Generator, folder: Path) -> str:
    """Actions beside clips declare giant shapes."""
    (file,) = folder.rglob("actions.npy")
    content = file.read_bytes()
    shapes = ("(9999999999, 2), }", "(60, 9999999999), }", "(400000000,), }", "(50000000, 2), }")
    old = content[content.index(b"(") : content.index(b"}") + 1]
    new = shapes[int(rng.integers(len(shapes)))].encode()
    head = content.index(b"(")
    end = content.index(b"\n")
    line = (content[10:head] + new).ljust(end - 10)
    file.write_bytes(content[:10] + line[: end - 10] + content[end:])
    return f"giant actions for {old!r}"


def giant_picture(rng: np.random.Generator, folder: Path) -> str:
    """A video declares larger pictures wherever it tells their size, in words of two or four bytes; or any fault."""
    files = sorted(path for path in folder.rglob("*.*") if path.suffix in (".mp4", ".avi"))
    file = files[int(rng.integers(len(files)))]
    if rng.integers(2):
        return in_file(f"*{file.suffix}", rng, folder)
    word = (">H", "<I", ">I")[int(rng.integers(3))]
    size = int(2 ** rng.integers(9, 15))
    file.write_bytes(file.read_bytes().replace(struct.pack(word, SIDE), struct.pack(word, size)))
    return f"giant picture {size}"

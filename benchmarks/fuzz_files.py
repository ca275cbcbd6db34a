"""Small sound files of every kind that is read, and readers that take in all of them; `fuzz.py` damages them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from lewm.datasets.schema import Source, open_source
from lewm.datasets.shard_writer import EpisodeWriter
from lewm.datasets.tar_shards import ShardSource
from lewm.datasets.video import VIDEOS, write_video

EPISODES, ROWS, SIDE = 4, 10, 16
Facts = dict[str, Any]  # what was read, by name


# What is written


def episode(e: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A plain scene with a moving square, and columns."""
    rng = np.random.default_rng(e)
    frames = np.full((ROWS, SIDE, SIDE, 3), 40 * e, dtype=np.uint8)
    for t in range(ROWS):
        frames[t, t : t + 5, 3:9] = rng.integers(0, 256, 3)
    columns = {"action": rng.normal(size=(ROWS, 2)).astype(np.float32), "state": rng.normal(size=(ROWS, 3))}
    return frames, columns | {"goal": np.repeat(rng.normal(size=(1, 2)), ROWS, axis=0)}


def write_shards(folder: Path, codec: str) -> None:
    """Two shards of two episodes."""
    with EpisodeWriter(folder, codec=codec, shard_bytes=1) as writer:
        for e in range(EPISODES):
            frames, columns = episode(e)
            writer.shard_bytes = 1 if e % 2 else 2**30
            writer.add(frames, columns, key=f"key{e}")


def write_hdf5(folder: Path, compression: str | None) -> None:
    """One flat file."""
    parts = [episode(e) for e in range(EPISODES)]
    columns = {name: np.concatenate([c[name] for _, c in parts]) for name in parts[0][1]}
    columns |= {"pixels": np.concatenate([frames for frames, _ in parts])}
    columns |= {"ep_len": np.full(EPISODES, ROWS), "ep_offset": np.arange(EPISODES) * ROWS}
    with h5py.File(folder / "flat.h5", "w", libver="latest" if compression else None) as file:
        for name, values in columns.items():
            chunks = {"chunks": (1, *values.shape[1:]), "compression": compression} if compression else {}
            file.create_dataset(name, data=values, **chunks)


def write_clips(folder: Path) -> None:
    """One file of clips with events."""
    pixels = np.stack([np.stack([episode(e)[0]] * 3) for e in range(EPISODES)])
    pixels[:, 1, 5:, :4] = 255
    pixels[:, 2, 5:, 4:8] = 255
    action = np.stack([np.stack([episode(e)[1]["action"]] * 3) for e in range(EPISODES)])
    with h5py.File(folder / "clips.h5", "w") as file:
        file["pixels"], file["action"] = pixels, action
        file["perturb_step"] = np.full(EPISODES, 5)
        file["kind"] = np.array([b"unperturbed", b"visual", b"physical"])


def write_clip_folder(folder: Path, format: str) -> None:
    """Two trials as folders of images, or as videos."""
    for e in range(2):
        trial = folder / f"trial_{e}"
        trial.mkdir()
        frames, columns = episode(e)
        for kind in ("unperturbed", "visual"):
            shown = np.where(np.arange(ROWS)[:, None, None, None] >= 5, 255 - frames, frames)
            write_clip(shown if kind == "visual" else frames, trial / kind, format)
        np.save(trial / "actions.npy", columns["action"])
        (trial / "event.json").write_text('{"perturb_step": 5}')


def write_clip(frames: np.ndarray, path: Path, format: str) -> None:
    """Frames as a folder of images, or as one video."""
    if f".{format}" in VIDEOS:
        write_video(frames, path.with_suffix(f".{format}"), fps=10)
        return
    path.mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{t}.{format}")


# What is read


def read_source(path: Path, **options: Any) -> Facts:
    """Every byte of a data set."""
    return facts_of(ShardSource(path, **options) if options else open_source(path))


def facts_of(source: Source) -> Facts:
    """Every byte of a source; frames apart from all else."""
    facts: Facts = {"keys": source.keys, "lengths": source.lengths.tolist(), "columns": sorted(source.columns)}
    for e in range(len(source.lengths)):
        facts[f"frames {e}"] = source.frames(e, np.arange(source.lengths[e])).tobytes()
        facts[f"actions {e}"] = source.actions(e)[:-1].tobytes()
        facts |= {f"{name} {e}": source.column(name, e).tobytes() for name in source.columns}
    return facts


def read_skipping(path: Path) -> Facts:
    """Every clip as training reads it, with `on_bad_record: skip`: those that were left out are not compared."""
    from lewm.datasets.clips import ClipDataset

    source = open_source(path)
    clips = ClipDataset(source, np.arange(len(source.lengths)), num_frames=3, frameskip=2, skip=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = clips[list(range(len(clips)))]
    good = {int(i): (p.numpy().tobytes(), a.numpy().tobytes()) for p, a, i, w in zip(*batch, strict=True) if w > 0}
    return {"clips": good, "skipped": len(clips) - len(good)}


def read_clips(path: Path) -> Facts:
    """Every trial of a file or folder of clips."""
    from lewm.probes.clip_folder import read_clip_folder
    from lewm.probes.clip_reader import read_clip_file

    trials = read_clip_folder(path, 1, 99) if path.is_dir() else read_clip_file(path, 1, 99)
    facts: Facts = {"kinds": sorted(trials.natures)}
    for i, trial in enumerate(trials.each):
        facts[f"plain {i}"] = (trial.plain.pixels.tobytes(), trial.plain.actions.tobytes())
        for kind, version in trial.versions.items():
            facts[f"{kind} {i}"] = (version.clip.pixels.tobytes(), version.clip.actions.tobytes(), version.event)
    return facts

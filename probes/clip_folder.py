"""Clips of violation of expectation from a folder of videos or images, one folder a trial.

    clips/
      kitchen_1/
        unperturbed.mp4                   or a folder unperturbed/ of images; .avi, .mkv, .mov, .webm and .gif as well
        visual.mp4                        versions in which something happens: visual, physical,
        physical-teleport.mp4             visual-NAME or physical-NAME
        actions.csv                       or .npy; row t leads from frame t to t + 1
        physical-teleport.actions.csv     one version's own, where it does not share them
        event.json                        {"perturb_step": 20}, or by version:
                                          {"perturb_step": {"visual": 25, "physical-teleport": 20}}

All clips have equally many frames. `perturb_step` is the first frame, from 0, in which the event can be seen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float32, UInt8

from lewm.datasets.video import (
    ACTIONS,
    VIDEOS,
    actions_between,
    is_lossless,
    natural,
    read_actions,
    read_frames,
)
from lewm.datasets.violation import PLAIN, Clip, Nature
from lewm.datasets.windows import action_blocks, frame_rows
from lewm.errors import UserError
from lewm.probes.results import sha256
from lewm.probes.trials import Trial, Trials, Version, event_step

EVENT = "event.json"
NATURES: tuple[Nature, ...] = get_args(Nature)
KIND = re.compile(rf"({'|'.join(NATURES)})(-.+)?")
LOSS = 8.0  # grey levels, mean over a frame, by which two encodings of the same frame may differ


@dataclass(frozen=True)
class Files:
    """What a trial's folder holds; nothing is read."""

    folder: Path
    clips: dict[str, Path]  # by kind, the plain one among them
    actions: dict[str, Path]  # by kind; "" for those that are shared

    @property
    def kinds(self) -> list[str]:
        """Of the versions."""
        return sorted(set(self.clips) - {PLAIN})

    def actions_of(self, kind: str) -> Path:
        """A clip's own actions, or those that are shared."""
        return self.actions[kind] if kind in self.actions else self.actions[""]

    @cached_property
    def events(self) -> dict[str, int]:
        """The first frame in which each version's event can be seen."""
        return _events(self.folder, self.kinds) if self.kinds else {}


def is_clip_folder(path: str | Path) -> bool:
    """Whether a folder holds trials, or is one."""
    path = Path(path)
    return path.is_dir() and any(_is_trial(folder) for folder in (path, *_folders(path)))


def read_clip_folder(path: str | Path, frameskip: int, max_clips: int) -> Trials:
    """The first `max_clips` trials of a folder, subsampled; names are checked now, clips when they are read."""
    path = Path(path)
    if _is_trial(path):
        raise UserError(f"{path} is the folder of one trial; name the folder above it, which may hold others as well")
    folders = sorted(_folders(path), key=natural)[:max_clips]
    trials = [_files(folder) for folder in folders]
    if not trials:
        raise UserError(f"no trials in {path}: it must hold a folder for each, with {PLAIN}.mp4 and its versions")
    for files in trials:
        _ = files.events  # before clips are decoded, which takes long
    kinds = sorted({kind for files in trials for kind in files.kinds})
    if not kinds:
        raise UserError(f"nothing happens in {path}: no trial has a clip named {' or '.join(NATURES)}")
    natures: dict[str, Nature] = {k: nature for k in kinds for nature in NATURES if k.split("-")[0] == nature}
    return Trials(natures, ClipFolder(trials, frameskip), _fingerprint(path), f"clips of the folder {path}", "all")


def _is_trial(folder: Path) -> bool:
    names = [entry.stem if entry.is_file() else entry.name for entry in _visible(folder)]
    return PLAIN in names or (folder / EVENT).is_file()


def _folders(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


# Names


def _files(folder: Path) -> Files:
    clips: dict[str, Path] = {}
    actions: dict[str, Path] = {}
    for entry in _visible(folder):
        suffix = entry.suffix.lower()
        if entry.is_dir() or suffix in VIDEOS:
            kind = entry.name if entry.is_dir() else entry.stem
            if kind != PLAIN and not KIND.fullmatch(kind):
                raise UserError(f"{entry} is no kind of clip; there are: {PLAIN}, {_names()}")
            _add(clips, kind, entry)
        elif suffix in ACTIONS:
            name, _, last = entry.stem.rpartition(".")
            if last != "actions":
                raise UserError(f"{entry} is not known; actions are actions{suffix}, or KIND.actions{suffix}")
            _add(actions, name, entry)
    return _complete(Files(folder, clips, actions))


def _names() -> str:
    return ", ".join([*NATURES, *(f"{nature}-NAME" for nature in NATURES)])


def _add(found: dict[str, Path], name: str, entry: Path) -> None:
    if name in found:
        raise UserError(f"{found[name]} and {entry} are the same thing twice; keep one")
    found[name] = entry


def _complete(files: Files) -> Files:
    if PLAIN not in files.clips:
        raise UserError(f"no {PLAIN} clip in {files.folder}; it must hold {PLAIN}.mp4 or a folder {PLAIN} of images")
    lonely = sorted(set(files.actions) - {"", *files.clips})
    if lonely:
        raise UserError(f"{files.actions[lonely[0]]} belongs to no clip; there are: {', '.join(files.clips)}")
    lacking = [kind for kind in files.clips if kind not in files.actions]
    if lacking and "" not in files.actions:
        raise UserError(f"no actions of {lacking[0]} in {files.folder}; it must hold actions.npy or actions.csv")
    return files


def _events(folder: Path, kinds: list[str]) -> dict[str, int]:
    path = folder / EVENT
    if not path.is_file():
        raise UserError(f'no {EVENT} in {folder}; it says where the event is first seen: {{"perturb_step": 20}}')
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not readable as JSON: {path} ({error})") from error
    step = content.get("perturb_step") if isinstance(content, dict) else None
    events: dict[str, Any] = step if isinstance(step, dict) else dict.fromkeys(kinds, step)
    if sorted(events) != kinds:
        raise UserError(f"perturb_step of {path} names {', '.join(sorted(events))}; the clips are {', '.join(kinds)}")
    for event in events.values():
        if type(event) is not int:  # a bool is an int too
            raise UserError(f"perturb_step of {path} is {json.dumps(step)}; it must be the whole number of a frame")
    return events


def _fingerprint(path: Path) -> str:
    """Hash of the names and contents of all files of all trials."""
    found = hashlib.sha256()
    for folder in _folders(path):
        inside = {file: file.relative_to(path).as_posix() for file in folder.rglob("*") if file.is_file()}
        for file, name in sorted(inside.items(), key=lambda pair: pair[1]):
            if not any(part.startswith(".") for part in name.split("/")):
                found.update(f"{name}\0{sha256(file)}\n".encode())
    return found.hexdigest()


# Contents


@dataclass(frozen=True)
class Recording:
    """A clip as it is in its files: every frame, and the actions between them."""

    path: Path
    frames: UInt8[np.ndarray, "n h w 3"]
    actions: Float32[np.ndarray, "n-1 a"]

    def subsampled(self, frameskip: int) -> Clip:
        """Rows 0, k, 2k, ... and the blocks of actions between them."""
        num_frames = (len(self.frames) - 1) // frameskip + 1
        rows = frame_rows(0, num_frames, frameskip)
        return Clip(self.frames[rows], action_blocks(self.actions, 0, num_frames, frameskip))


@dataclass(frozen=True)
class ClipFolder:
    """Trials read one at a time, anew in every pass."""

    trials: list[Files]
    frameskip: int

    def __iter__(self) -> Iterator[Trial]:
        first: tuple[Path, tuple[int, ...], int] | None = None
        for group, files in enumerate(self.trials):
            plain = _recording(files, PLAIN)
            first = first or (plain.path, plain.frames.shape, plain.actions.shape[1])
            check_alike(plain, *first)
            check_long_enough(plain, self.frameskip)
            versions = {kind: self._version(files, kind, plain) for kind in files.kinds}
            yield Trial(plain.subsampled(self.frameskip), versions, group)

    def _version(self, files: Files, kind: str, plain: Recording) -> Version:
        version, event = _recording(files, kind, plain), files.events[kind]
        clip = version.subsampled(self.frameskip)
        try:
            step = event_step(event, self.frameskip, len(clip.pixels))
        except UserError as error:
            raise UserError(f"{files.folder / EVENT}, {kind}: {error}") from error
        check_equal_before(event, plain, version)
        return Version(clip, step)


def _recording(files: Files, kind: str, plain: Recording | None = None) -> Recording:
    path, frames = files.clips[kind], read_frames(files.clips[kind])
    if plain is not None:  # before its actions, which would be too few or too many for it
        check_same_frames(path, frames.shape, plain.path, plain.frames.shape)
    actions = files.actions_of(kind)
    found = Recording(path, frames, actions_between(read_actions(actions), len(frames), actions))
    if plain is not None:
        check_alike(found, plain.path, plain.frames.shape, plain.actions.shape[1])
    return found


def check_long_enough(clip: Recording, frameskip: int) -> None:
    """UserError where not even the first and the second frame that the model sees are there."""
    if len(clip.frames) <= frameskip:
        raise UserError(f"{clip.path} has {len(clip.frames)} frames, too few for frameskip {frameskip}")


def check_alike(clip: Recording, path: Path, shape: tuple[int, ...], action_dim: int) -> None:
    """UserError with both values where a clip is not like another of its folder."""
    check_same_frames(clip.path, clip.frames.shape, path, shape)
    if clip.actions.shape[1] != action_dim:
        raise UserError(
            f"actions of {clip.path} have {clip.actions.shape[1]} numbers, those of {path} have {action_dim}; all "
            "clips of a folder must be alike"
        )


def check_same_frames(path: Path, shape: tuple[int, ...], other: Path, others: tuple[int, ...]) -> None:
    """UserError with both values where clips differ in the number or the size of their frames."""
    if shape[0] != others[0]:
        raise UserError(
            f"{path} has {shape[0]} frames, {other} has {others[0]}; all clips of a folder must have equally many"
        )
    if shape != others:
        raise UserError(
            f"frames of {path} are {shape[1]} x {shape[2]}, those of {other} {others[1]} x {others[2]}; all clips of a "
            "folder must be of one size"
        )


def check_equal_before(event: int, plain: Recording, version: Recording) -> None:
    """UserError where a version differs from the plain clip in a frame before `event`, or an action before it.

    The action of row event - 1 leads to the event, so it may be another one. Encoders spread what comes later over
    earlier frames: videos, unlike PNGs, need only look the same.
    """
    exact = is_lossless(plain.path) and is_lossless(version.path)
    apart = np.array([_distance(one, other) for one, other in zip(plain.frames[:event], version.frames, strict=False)])
    wrong = np.flatnonzero(apart > (0 if exact else LOSS))
    if wrong.size:
        raise UserError(
            f"{version.path} and {plain.path} are unequal before the event: frame {wrong[0]} differs by "
            f"{apart[wrong[0]]:.2g} grey levels on average, the event is at frame {event}; is perturb_step right?"
        )
    wrong = np.flatnonzero((plain.actions[: event - 1] != version.actions[: event - 1]).any(axis=1))
    if wrong.size:
        raise UserError(
            f"actions of {version.path} and {plain.path} are unequal before the event: row {wrong[0]} differs, the "
            f"event is at frame {event}; is perturb_step right?"
        )


def _distance(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())

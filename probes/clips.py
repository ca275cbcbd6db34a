"""Triples of clips (unperturbed, visual, physical) for violation of expectation: read, or made from episodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32, Int, UInt8

from lewm.datasets.schema import Source
from lewm.datasets.windows import action_blocks, clip_rows, frame_rows, num_starts
from lewm.errors import UserError

KINDS = ("unperturbed", "visual", "physical")
MAX_FRAMES = 12  # of a clip made from an episode
MIN_FRAMES = 4
COLUMNS = ("pixels", "action", "perturb_step", "kind")


@dataclass(frozen=True)
class Triple:
    """Three clips, in the order of `KINDS`, that are equal before the event."""

    pixels: UInt8[np.ndarray, "3 t h w c"]
    actions: Float32[np.ndarray, "3 t-1 k a"]
    event: int  # the step, from 0, whose prediction the event breaks
    group: int  # clips of one group are not independent: a triple of a file, an episode of a data set


def event_step(perturbed: int, frameskip: int, num_frames: int) -> int:
    """The step of a subsampled clip in which the event happens, from 0; UserError where it is not inside the clip.

    The clip keeps rows 0, k, 2k, ...; step i leads from its frame i to its frame i + 1. The event is visible from row p
    on, so first in frame j = ceil(p / k), and the step that leads there is i = j - 1.
    """
    first = math.ceil(perturbed / frameskip)
    if not 1 <= first < num_frames:
        raise UserError(
            f"the event at row {perturbed} is outside the clip: at frameskip {frameskip} its {num_frames} frames "
            f"show events of rows 1 to {(num_frames - 1) * frameskip}"
        )
    return first - 1


def is_triples(path: str | Path) -> bool:
    """Whether a file holds triples of clips rather than episodes."""
    if not Path(path).is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return "perturb_step" in file
    except OSError:
        return False  # not HDF5: whoever reads it as a data set says so


def read_triples(path: str | Path, frameskip: int, max_clips: int) -> Iterator[Triple]:
    """The triples of a file, subsampled; the first `max_clips` of them."""
    with h5py.File(path, "r") as file:
        missing = [name for name in COLUMNS if name not in file]
        if missing:
            raise UserError(f"no {missing[0]!r} in {path}; a file of triples has: {', '.join(COLUMNS)}")
        pixels, actions, events, order = check_layout(file, path)
        num_frames = (pixels.shape[2] - 1) // frameskip + 1
        if num_frames < 2:
            raise UserError(f"clips of {pixels.shape[2]} frames in {path} are too short for frameskip {frameskip}")
        rows = frame_rows(0, num_frames, frameskip)
        for i in range(min(len(pixels), max_clips)):
            frames, taken = pixels[i][order][:, rows], actions[i][order].astype(np.float32)
            blocks = np.stack([action_blocks(a, 0, num_frames, frameskip) for a in taken])
            yield Triple(frames, blocks, event_step(int(events[i]), frameskip, num_frames), i)


def check_layout(file: h5py.File, path: str | Path) -> tuple[h5py.Dataset, h5py.Dataset, np.ndarray, list[int]]:
    """Pixels, actions, events, and where each of `KINDS` stands; UserError where shapes or kinds do not fit."""
    pixels, actions, perturbed, kinds = (file[name] for name in COLUMNS)
    for column in (pixels, actions, perturbed, kinds):
        if not isinstance(column, h5py.Dataset):
            raise UserError(f"{column.name} of {path} is a group; a file of triples has data sets {', '.join(COLUMNS)}")
    assert isinstance(pixels, h5py.Dataset) and isinstance(actions, h5py.Dataset)
    assert isinstance(perturbed, h5py.Dataset) and isinstance(kinds, h5py.Dataset)
    events = perturbed[:]
    names = [str(name, "utf-8") if isinstance(name, bytes) else str(name) for name in kinds[:]]
    if sorted(names) != sorted(KINDS):
        raise UserError(f"{path} has clips of kind {', '.join(names)}; needed are {', '.join(KINDS)}")
    if pixels.dtype != np.uint8 or pixels.ndim != 6 or actions.ndim != 4 or pixels.shape[:3] != actions.shape[:3]:
        raise UserError(
            f"{path}: pixels must be uint8 (n, 3, t, h, w, c) and action (n, 3, t, a); "
            f"they are {pixels.dtype} {pixels.shape} and {actions.shape}"
        )
    if len(events) != len(pixels) or len(pixels) == 0:
        raise UserError(f"{path} has {len(pixels)} triples and {len(events)} perturb_steps; it must have one for each")
    return pixels, actions, events, [names.index(kind) for kind in KINDS]


def disturbed_triples(
    source: Source, episodes: Int[np.ndarray, " m"], frameskip: int, max_clips: int, seed: int
) -> Iterator[Triple]:
    """Episodes disturbed halfway: visual, a change of all colours; physical, a splice into another episode.

    The splice is a teleport: from the event on the clip shows the other episode, with the actions taken there, so that
    only the step of the event is against the dynamics.
    """
    num_frames = frames_per_clip(source, episodes, frameskip)
    starts = num_starts(source.lengths, num_frames, frameskip)
    fit = episodes[starts[episodes] > 0]
    if len(fit) < 2:
        raise UserError(
            f"a splice needs 2 episodes of at least {clip_rows(num_frames, frameskip)} rows, {source.path} has "
            f"{len(fit)} in this part; use --split all or a file of triples"
        )
    rng = np.random.default_rng(seed)
    for episode, start in chosen_clips(fit, starts, max_clips):
        event = int(rng.integers(num_frames // 3, num_frames - num_frames // 3))  # the first frame that is disturbed
        donor = int(rng.choice(fit[fit != episode]))
        theirs = int(rng.integers(starts[donor]))
        yield disturb(
            clip(source, episode, start, num_frames, frameskip),
            clip(source, donor, theirs, num_frames, frameskip),
            event,
            frameskip,
            episode,
        )


def frames_per_clip(source: Source, episodes: Int[np.ndarray, " m"], frameskip: int) -> int:
    """The longest clip, up to `MAX_FRAMES`, that at least half of the episodes hold; never below `MIN_FRAMES`."""
    longest = (np.median(source.lengths[episodes]) - 1) // frameskip + 1
    return int(np.clip(longest, MIN_FRAMES, MAX_FRAMES))


def chosen_clips(fit: Int[np.ndarray, " m"], starts: Int[np.ndarray, " e"], max_clips: int) -> list[tuple[int, int]]:
    """Episode and start row of up to `max_clips` clips, as evenly over episodes as can be."""
    kept = fit[np.arange(min(len(fit), max_clips)) * len(fit) // min(len(fit), max_clips)]
    each = max(1, max_clips // len(kept))
    return [(int(e), int(s)) for e in kept for s in np.unique(np.linspace(0, starts[e] - 1, each).round().astype(int))]


def clip(source: Source, episode: int, start: int, num_frames: int, frameskip: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (t, h, w, c) and action blocks (t-1, k, a) of one clip."""
    frames = source.frames(episode, frame_rows(start, num_frames, frameskip))
    return frames, action_blocks(source.actions(episode), start, num_frames, frameskip)


def disturb(
    own: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], first: int, frameskip: int, group: int
) -> Triple:
    """The triple of a clip whose frames from number `first` on are recoloured, or replaced by another clip's."""
    (frames, actions), (their_frames, their_actions) = own, other
    visual = np.concatenate([frames[:first], recoloured(frames[first:])])
    physical = np.concatenate([frames[:first], their_frames[first:]])
    # Block i leads from frame i to i + 1: block first - 1 leads into the event and is still the clip's own.
    theirs = np.concatenate([actions[:first], their_actions[first:]])
    event = event_step(first * frameskip, frameskip, len(frames))
    return Triple(np.stack([frames, visual, physical]), np.stack([actions, actions, theirs]), event, group)


def recoloured(frames: UInt8[np.ndarray, "t h w c"]) -> UInt8[np.ndarray, "t h w c"]:
    """Frames with their channels turned by one (red becomes green); inverted where all are grey."""
    turned = np.roll(frames, 1, axis=-1)
    return 255 - frames if np.array_equal(turned, frames) else turned

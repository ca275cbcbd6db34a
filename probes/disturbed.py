"""Trials of violation of expectation from recorded episodes: clips, each disturbed in every way that it allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float, Int, UInt8

from lewm.datasets.schema import Source
from lewm.datasets.stats import MIN_STD, Moments, moments
from lewm.datasets.violation import MIN_CHANGE, Clip, RecordedViolation, Scene
from lewm.datasets.windows import action_blocks, clip_rows, frame_rows, num_starts
from lewm.errors import UserError
from lewm.probes.trials import Trial, Trials, Version

MAX_FRAMES = 12  # of a clip
MIN_FRAMES = 4
JUMP = (2, 4)  # frames that a jump in time leaves out: as many as the episode holds, between these
CANDIDATES = 8  # other episodes that are tried for one with the same background
SAME_PIXELS = 0.9  # of a background; the rest may be what stands elsewhere
MIN_ACTION = 0.5  # root mean square of a block's change, in standard deviations of the actions


def disturbed(
    source: Source,
    episodes: Int[np.ndarray, " m"],
    frameskip: int,
    violations: Sequence[RecordedViolation],
    max_clips: int,
    seed: int,
    *,
    split: str = "given episodes",
) -> Trials:
    """Clips of episodes, each disturbed once by every kind after its first half; UserError below two episodes.

    A kind is absent from a trial where the clip lacks what it takes (another episode with the same background), or
    where nothing would happen: neither the first wrong frame nor the actions that lead to it differ from the clip's.
    """
    num_frames = frames_per_clip(source, episodes, frameskip)
    starts = num_starts(source.lengths, num_frames, frameskip)
    fit = episodes[starts[episodes] > 0]
    if len(fit) < 2:
        raise UserError(
            f"a splice needs 2 episodes of at least {clip_rows(num_frames, frameskip)} rows, {source.path} has "
            f"{len(fit)} in this part; use --split all or a file of triples"
        )
    chosen = chosen_clips(fit, starts, max_clips)
    each = Disturbed(source, fit, starts, num_frames, frameskip, chosen, violations, seed)
    return Trials(
        natures={violation.name: violation.nature for violation in violations},
        each=each,
        fingerprint=source.fingerprint(),
        what=f"disturbed clips of {num_frames} frames from {source.path.name}",
        split=split,
    )


@dataclass(frozen=True)
class Disturbed:
    """Trials that are made when they are asked for, the same every time, so that one at a time is held."""

    source: Source
    fit: Int[np.ndarray, " m"]  # episodes that hold a clip
    starts: Int[np.ndarray, " e"]  # clips in each episode of the source
    num_frames: int
    frameskip: int
    chosen: list[tuple[int, int]]  # episode and start row of each trial
    violations: Sequence[RecordedViolation]
    seed: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Trial]:
        std = action_std(self.source, self.fit)
        for episode, start in self.chosen:
            scene = self.scene(episode, start)
            found = {v.name: v.disturb(scene, self.rng(episode, start, v.name)) for v in self.violations}
            versions = {
                name: Version(clip, scene.first - 1)
                for name, clip in found.items()
                if clip is not None and happens(clip, scene.own, scene.first, std)
            }
            yield Trial(scene.own, versions, episode)

    def scene(self, episode: int, start: int) -> Scene:
        """A clip, where in it something goes wrong, and the clips to put in its place."""
        num, skip = self.num_frames, self.frameskip
        spare = (int(self.source.lengths[episode]) - start - clip_rows(num, skip)) // skip
        jump = min(spare, JUMP[1])
        jump = jump if jump >= JUMP[0] else 0
        long = clip(self.source, episode, start, num + jump, skip)
        own, later = (Clip(long.pixels[j : j + num], long.actions[j : j + num - 1]) for j in (0, jump))
        first = first_wrong(num, self.rng(episode, start, "first"))
        other = self.other(episode, own, self.rng(episode, start, "other"))
        return Scene(own, first, later if jump else None, other)

    def other(self, episode: int, own: Clip, rng: np.random.Generator) -> Clip | None:
        """A clip of another episode with the same background; None where few candidates have none."""
        behind = background(own.pixels)
        for donor in rng.permutation(self.fit[self.fit != episode])[:CANDIDATES]:
            start = int(rng.integers(self.starts[donor]))
            found = clip(self.source, int(donor), start, self.num_frames, self.frameskip)
            if agree(behind, background(found.pixels)):
                return found
        return None

    def rng(self, episode: int, start: int, purpose: str) -> np.random.Generator:
        """A stream of its own for each clip and purpose, whatever other clips and kinds are chosen."""
        return np.random.default_rng([self.seed, episode, start, *purpose.encode()])


def frames_per_clip(source: Source, episodes: Int[np.ndarray, " m"], frameskip: int) -> int:
    """The longest clip, up to `MAX_FRAMES`, that at least half of the episodes hold; never below `MIN_FRAMES`."""
    longest = (np.median(source.lengths[episodes]) - 1) // frameskip + 1
    return int(np.clip(longest, MIN_FRAMES, MAX_FRAMES))


def chosen_clips(fit: Int[np.ndarray, " m"], starts: Int[np.ndarray, " e"], max_clips: int) -> list[tuple[int, int]]:
    """Episode and start row of up to `max_clips` clips, as evenly over episodes, and within them, as can be."""
    kept = fit[np.arange(min(len(fit), max_clips)) * len(fit) // min(len(fit), max_clips)]
    each = max(1, max_clips // len(kept))
    middles = (np.arange(each) + 0.5) / each  # of equal parts of an episode
    return [(int(e), int(s)) for e in kept for s in np.unique((middles * starts[e]).astype(int))]


def first_wrong(num_frames: int, rng: np.random.Generator) -> int:
    """The first wrong frame: late enough that all frames from it on can play back, with a quarter of them left."""
    return int(rng.integers(num_frames // 2 + 1, num_frames - max(1, num_frames // 4) + 1))


def clip(source: Source, episode: int, start: int, num_frames: int, frameskip: int) -> Clip:
    """One clip of an episode."""
    frames = source.frames(episode, frame_rows(start, num_frames, frameskip))
    return Clip(frames, action_blocks(source.actions(episode), start, num_frames, frameskip))


def background(pixels: UInt8[np.ndarray, "t h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Each pixel's median over the frames, the upper one of two: what stands still for half of the clip."""
    return np.sort(pixels, axis=0)[len(pixels) // 2]


def agree(one: UInt8[np.ndarray, "h w c"], two: UInt8[np.ndarray, "h w c"]) -> bool:
    """Whether two backgrounds differ by at most 16 grey levels in at least 90 % of the pixels."""
    return bool((change(one, two).max(axis=-1) <= MIN_CHANGE).mean() >= SAME_PIXELS)


def happens(disturbed: Clip, own: Clip, first: int, std: Float[np.ndarray, " a"]) -> bool:
    """Whether the first wrong frame, or the block of actions that leads to it, differs from the clip's own."""
    if change(disturbed.pixels[first], own.pixels[first]).max() > MIN_CHANGE:
        return True
    block = (disturbed.actions[first - 1] - own.actions[first - 1]) / std
    return bool(np.sqrt(np.square(block).mean()) >= MIN_ACTION)


def change(one: UInt8[np.ndarray, "*s"], two: UInt8[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
    """Grey levels between two pictures."""
    return np.maximum(one, two) - np.minimum(one, two)


def action_std(source: Source, episodes: Int[np.ndarray, " m"]) -> Float[np.ndarray, " a"]:
    """Per dimension, over all valid actions of the episodes; 1 where the actions are constant."""
    std = reduce(Moments.__add__, (moments(source.actions(int(e))) for e in episodes)).std
    return np.where(std < MIN_STD, 1.0, std)

"""Violations made of recorded clips alone: frames and actions exchanged, and frames painted over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from numpy.lib.stride_tricks import sliding_window_view

from lewm.datasets.violation import Clip, Nature, Scene, register

VISIBLE = 16  # grey levels; a smaller change of a pixel may be the camera's
SIDES = (1 / 4, 1 / 2)  # of a region, in sides of the frame
TINT = 1 / 2  # part of the way to the new colour
COLOUR_STEP = (64, 192)  # grey levels by which each channel of a new colour is turned round 0..255
DARKER, LIGHTER = (0.3, 0.6), (1.5, 2.5)  # factors of brightness
NOISE = 25.0  # standard deviation, grey levels
PATCH = 1 / 8  # side of a patch, in the frame's smaller side
REGIONS = 8  # that are tried, until one is neither too dark nor too light to change

Box = tuple[slice, slice]  # rows and columns
Pixels = UInt8[np.ndarray, "t h w c"]


# Against the dynamics


class Physical:
    """What cannot happen; the first frame of it is wrong, and those after it follow from one another."""

    nature: ClassVar[Nature] = "physical"
    lasts: ClassVar[bool] = False


@register
class Teleport(Physical):
    """The clip goes on as another episode, with the actions taken there."""

    name: ClassVar[str] = "teleport"

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        return None if scene.other is None else spliced(scene.own, scene.other, scene.first)


@register
class TimeJump(Physical):
    """The clip goes on as its own episode does some frames later, with the actions taken then."""

    name: ClassVar[str] = "time_jump"

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        return None if scene.later is None else spliced(scene.own, scene.later, scene.first)


@register
class Reversal(Physical):
    """The frames play back from the last true one on, without a jump; the actions go on forward."""

    name: ClassVar[str] = "reversal"
    lasts: ClassVar[bool] = True

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        pixels, first = scene.own.pixels, scene.first
        back = 2 * first - 2 - np.arange(first, len(pixels))  # first + j shows first - 2 - j
        assert back[-1] >= 0, f"{len(pixels)} frames do not play back from frame {first}"
        return Clip(np.concatenate([pixels[:first], pixels[back]]), scene.own.actions)


@register
class Freeze(Physical):
    """The picture stands still while the actions go on."""

    name: ClassVar[str] = "freeze"
    lasts: ClassVar[bool] = True

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        shown = np.minimum(np.arange(len(scene.own.pixels)), scene.first - 1)
        return Clip(scene.own.pixels[shown], scene.own.actions)


@register
class FrameSwap(Physical):
    """Two frames change places, so that three steps are wrong: into the pair, within it, and out of it."""

    name: ClassVar[str] = "frame_swap"

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        first, shown = scene.first, np.arange(len(scene.own.pixels))
        if first + 1 == len(shown):
            return None
        shown[[first, first + 1]] = first + 1, first
        return Clip(scene.own.pixels[shown], scene.own.actions)


@register
class ExchangedActions(Physical):
    """All frames are real; the actions from the event on are those of another episode."""

    name: ClassVar[str] = "exchanged_actions"
    lasts: ClassVar[bool] = True

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        if scene.other is None:
            return None
        wrong = scene.first - 1  # the block that leads to frame `first`
        return Clip(scene.own.pixels, np.concatenate([scene.own.actions[:wrong], scene.other.actions[wrong:]]))


def spliced(own: Clip, then: Clip, first: int) -> Clip:
    """Own frames before `first`, then another clip's, each with the actions taken there."""
    # Block first - 1 leads into the event and is still the clip's own, so that one step alone is wrong.
    return Clip(
        np.concatenate([own.pixels[:first], then.pixels[first:]]),
        np.concatenate([own.actions[:first], then.actions[first:]]),
    )


# New to look at, and possible


class Visual(ABC):
    """Paints over the frames from the event to the end; the actions are the clip's own."""

    nature: ClassVar[Nature] = "visual"
    lasts: ClassVar[bool] = False

    def disturb(self, scene: Scene, rng: np.random.Generator) -> Clip | None:
        pixels, first = scene.own.pixels, scene.first
        painted = self.paint(pixels, first, rng)
        return None if painted is None else Clip(np.concatenate([pixels[:first], painted]), scene.own.actions)

    @abstractmethod
    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        """The frames from number `first` on, painted over; None where nothing would be seen."""


@register
class Recolour(Visual):
    """The channels of all pixels are turned by one (red becomes green); where all is as good as grey, inverted."""

    name: ClassVar[str] = "recolour"

    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        frames = pixels[first:]
        turned = np.roll(frames, 1, axis=-1)
        seen = np.abs(turned[0].astype(np.int16) - frames[0]).max() > VISIBLE
        return turned if seen else 255 - frames


@register
class RegionColour(Visual):
    """A region is tinted half-way towards another colour."""

    name: ClassVar[str] = "region_colour"

    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        frames, box = pixels[first:], region(pixels, rng)
        seen = inside(frames, box).astype(np.float64)
        return with_inside(frames, box, seen + TINT * (other_colour(seen[0], rng) - seen))


@register
class Brightness(Visual):
    """A region becomes darker or lighter by a factor."""

    name: ClassVar[str] = "brightness"

    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        frames = pixels[first:]
        for box in (region(pixels, rng) for _ in range(REGIONS)):
            seen = inside(frames, box).astype(np.float64)
            for low, high in rng.permutation([DARKER, LIGHTER]):
                changed = np.minimum(seen * rng.uniform(low, high), 255)
                if np.abs(changed[0] - seen[0]).mean() > VISIBLE:  # black does not darken, white not lighten
                    return with_inside(frames, box, changed)
        return None


@register
class Noise(Visual):
    """Gaussian noise on a region, anew in every frame, so that no frame of it can be foreseen."""

    name: ClassVar[str] = "noise"
    lasts: ClassVar[bool] = True

    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        frames, box = pixels[first:], region(pixels, rng)
        seen = inside(frames, box).astype(np.float64)
        return with_inside(frames, box, seen + rng.normal(scale=NOISE, size=seen.shape))


@register
class Patch(Visual):
    """A distractor: a small square of one colour, on a place where nothing moves in the whole clip."""

    name: ClassVar[str] = "patch"

    def paint(self, pixels: Pixels, first: int, rng: np.random.Generator) -> Pixels | None:
        frames, side = pixels[first:], max(1, round(PATCH * min(pixels.shape[1:3])))
        still = (np.ptp(pixels, axis=0) <= VISIBLE).all(axis=-1)
        rows = sliding_window_view(still, side, axis=0).all(axis=-1)
        # places: (n, 2), the upper left corners of squares that are still all over
        places = np.argwhere(sliding_window_view(rows, side, axis=1).all(axis=-1))
        if len(places) == 0:
            return None
        row, column = places[rng.integers(len(places))]
        box = slice(row, row + side), slice(column, column + side)
        return with_inside(frames, box, other_colour(inside(frames, box)[0], rng))


def region(pixels: Pixels, rng: np.random.Generator) -> Box:
    """A random box of a quarter to half of each side, at least one pixel."""
    return span(pixels.shape[1], rng), span(pixels.shape[2], rng)


def span(size: int, rng: np.random.Generator) -> slice:
    """A random stretch of one side."""
    low, high = (max(1, int(part * size)) for part in SIDES)
    length = int(rng.integers(low, high + 1))
    start = int(rng.integers(size - length + 1))
    return slice(start, start + length)


def inside(frames: Pixels, box: Box) -> Pixels:
    """What is seen in a box."""
    return frames[:, box[0], box[1]]


def with_inside(frames: Pixels, box: Box, values: np.ndarray) -> Pixels:
    """The frames with other grey levels in a box, rounded, none below 0 or above 255."""
    out = frames.copy()
    out[:, box[0], box[1]] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return out


def other_colour(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour that differs from the mean of (h, w, c) in every channel by 64 grey levels at least: (c,)."""
    low, high = COLOUR_STEP
    return (np.rint(seen.mean(axis=(0, 1))) + rng.integers(low, high + 1, seen.shape[-1])) % 256

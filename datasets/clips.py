"""Clips of some episodes as a map-style data set, fetched a batch at a time."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch.utils.data import Dataset

from lewm.clip import ClipBatch
from lewm.datasets.bad_records import IN_A_ROW, substitute
from lewm.datasets.remote import NotFetched
from lewm.datasets.schema import Source
from lewm.datasets.windows import action_blocks, frame_rows, locate, num_starts
from lewm.errors import UserError


class ClipDataset(Dataset[ClipBatch]):
    """Clips of some episodes of a source, fetched a batch at a time; frames stay uint8.

    A clip is numbered through the given episodes in order. A negative number -1 - i stands for padding with clip i.
    With `skip`, a clip that cannot be read keeps its number, gets weight 0 and shows another clip (`substitute`).
    """

    def __init__(
        self, source: Source, episodes: np.ndarray, *, num_frames: int, frameskip: int, skip: bool = False
    ) -> None:
        self.source, self.episodes, self.num_frames, self.frameskip = source, episodes, num_frames, frameskip
        self.skip = skip
        self.starts = num_starts(source.lengths[episodes], num_frames, frameskip)
        self.num_clips = int(self.starts.sum())

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, numbers: list[int]) -> ClipBatch:
        given = np.asarray(numbers, dtype=np.int64)
        clips = np.where(given < 0, -1 - given, given)
        t, k = self.num_frames, self.frameskip
        pixels = np.empty((len(clips), t, *self.source.frame_shape), dtype=np.uint8)
        actions = np.empty((len(clips), t - 1, k, self.source.action_dim), dtype=np.float32)
        weight = (given >= 0).astype(np.float32)
        for i, (position, start) in enumerate(zip(*locate(clips, self.starts), strict=True)):
            if not self._fill(int(clips[i]), int(position), int(start), pixels[i], actions[i]):
                weight[i] = 0
        return ClipBatch(*(torch.from_numpy(x) for x in (pixels, actions, clips, weight)))

    def _fill(self, clip: int, position: int, start: int, pixels: np.ndarray, actions: np.ndarray) -> bool:
        """Read a clip, or what stands in for it; whether it was the clip itself."""
        try:
            self._read(position, start, pixels, actions)
            return True
        except UserError as error:
            if not self.skip or isinstance(error, NotFetched):
                raise
            why = error
        for attempt in range(IN_A_ROW):
            other = substitute(clip, attempt, self.num_clips)
            (position,), (start,) = locate(np.array([other]), self.starts)
            try:
                self._read(int(position), int(start), pixels, actions)
            except UserError:
                continue
            warnings.warn(f"clip {clip} is left out, clip {other} stands in for it: {why}", stacklevel=2)
            return False
        raise UserError(f"clip {clip} and {IN_A_ROW} others cannot be read: {why}") from why

    def _read(self, position: int, start: int, pixels: np.ndarray, actions: np.ndarray) -> None:
        t, k, episode = self.num_frames, self.frameskip, int(self.episodes[position])
        pixels[...] = self.source.frames(episode, frame_rows(start, t, k))
        actions[...] = action_blocks(self.source.actions(episode), start, t, k)

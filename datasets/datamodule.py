"""Clips for Lightning, from an HDF5 file or a folder of shards alike."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lewm.clip import ClipBatch, Interface
from lewm.datasets.order import EvaluationSampler, GlobalOrderSampler
from lewm.datasets.schema import Source, open_source
from lewm.datasets.split import PARTS, episodes_of
from lewm.datasets.stats import action_statistics
from lewm.datasets.windows import action_blocks, clip_rows, frame_rows, locate, num_starts
from lewm.errors import UserError

# What the order of clips and the split depend on besides the data: a checkpoint goes on only with the same.
FIXED = ("global_batch", "num_frames", "frameskip", "split_seed", "seed", "image_size")


class ClipDataset(Dataset[ClipBatch]):
    """Clips of some episodes of a source, fetched a batch at a time; frames stay uint8.

    A clip is numbered through the given episodes in order. A negative number -1 - i stands for padding with clip i.
    """

    def __init__(self, source: Source, episodes: np.ndarray, *, num_frames: int, frameskip: int) -> None:
        self.source, self.episodes, self.num_frames, self.frameskip = source, episodes, num_frames, frameskip
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
        for i, (position, start) in enumerate(zip(*locate(clips, self.starts), strict=True)):
            episode = int(self.episodes[position])
            pixels[i] = self.source.frames(episode, frame_rows(int(start), t, k))
            actions[i] = action_blocks(self.source.actions(episode), int(start), t, k)
        weight = (given >= 0).astype(np.float32)
        return ClipBatch(*(torch.from_numpy(x) for x in (pixels, actions, clips, weight)))


class ClipLoader(DataLoader):
    """A loader that can say that it is resumable: its position is the data module's, so its own state is empty."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class ClipDataModule(L.LightningDataModule):
    """Clips of a source, split by episode; its only state is the trainer's count of consumed clips.

    Args:
        path: an HDF5 file or a folder of shards.
        global_batch: clips per optimiser step over all ranks and accumulation; the weight of SIGReg belongs to it.
        num_frames: frames F of a clip; F - 1 predictions are made from it.
        frameskip: rows k between two frames of a clip; k actions form one block.
        image_size: side of the frames the encoder sees; null for the frames' own, others are resized on the device.
        split_seed: seed of the split by episode into 80 % train, 10 % val and 10 % test.
        seed: seed of the order of clips.
        num_workers: loader processes per rank.
        allow_data_change: resume although the data's fingerprint differs from the checkpoint's.
    """

    def __init__(
        self,
        path: str,
        *,
        global_batch: int = 128,
        num_frames: int = 4,
        frameskip: int = 5,
        image_size: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
        num_workers: int = 2,
        allow_data_change: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("global_batch", global_batch, 1), ("num_frames", num_frames, 2)):
            if value < least:
                raise UserError(f"data.{name} is {value}; it must be at least {least}")
        if frameskip < 1 or num_workers < 0:
            raise UserError(f"data.frameskip is {frameskip} and data.num_workers {num_workers}; least are 1 and 0")
        self.path, self.global_batch, self.num_frames, self.frameskip = path, global_batch, num_frames, frameskip
        self.image_size, self.split_seed, self.seed, self.num_workers = image_size, split_seed, seed, num_workers
        self.allow_data_change = allow_data_change

    @cached_property
    def source(self) -> Source:
        """The opened data; UserError for what is wrong with it."""
        return open_source(self.path)

    def episodes(self, part: str) -> np.ndarray:
        """Numbers of the episodes in a part of the split."""
        return episodes_of(part, self.split_seed, self.source.keys)

    def dataset(self, part: str) -> ClipDataset:
        """Clips of a part of the split."""
        episodes = self.episodes(part)
        return ClipDataset(self.source, episodes, num_frames=self.num_frames, frameskip=self.frameskip)

    @cached_property
    def train(self) -> ClipDataset:
        """Training clips; UserError if there are fewer than one global batch."""
        self._check_lengths()
        train = self.dataset("train")
        if len(train) < self.global_batch:
            raise UserError(
                f"data.global_batch is {self.global_batch} but the training split of {self.path} has {len(train)} "
                f"clips in {len(train.episodes)} episodes; lower data.global_batch or add data"
            )
        return train

    @property
    def interface(self) -> Interface:
        """What a model trained on this data must be fed with; its history may be any number of frames."""
        source = self.source
        mean, std = action_statistics(source, self.episodes("train"))
        h, w, channels = (int(n) for n in source.frame_shape)
        side = self.image_size or h
        if self.image_size is None and h != w:
            raise UserError(f"frames of {self.path} are {h} x {w}; set data.image_size to make them square")
        return Interface(
            image_size=side,
            channels=channels,
            frameskip=self.frameskip,
            history=self.num_frames - 1,
            action_mean=tuple(mean.tolist()),
            action_std=tuple(std.tolist()),
            action_names=tuple(f"action[{i}]" for i in range(source.action_dim)),
            resize=(h, w) != (side, side),
            fingerprint=source.fingerprint(),
            split_seed=self.split_seed,
            **({} if channels == 3 else {"pixel_mean": (0.5,) * channels, "pixel_std": (0.5,) * channels}),
        )

    def describe(self) -> dict[str, Any]:
        """Counts that a run prints and keeps: episodes, clips, and episodes too short to hold a clip, per part."""
        sheet: dict[str, Any] = {"path": str(self.path), "fingerprint": self.source.fingerprint()}
        for part in PARTS:
            clips = self.dataset(part)
            short = int((clips.starts == 0).sum())
            sheet[part] = {"episodes": len(clips.episodes), "clips": len(clips), "too_short": short}
        return sheet

    def train_dataloader(self) -> DataLoader:
        rank, world = self._rank_and_world()
        if self.global_batch % world:
            sizes = [self.global_batch // world * world, (self.global_batch // world + 1) * world]
            raise UserError(f"data.global_batch is {self.global_batch}, not a multiple of {world} ranks; try {sizes}")
        sampler = GlobalOrderSampler(
            len(self.train),
            global_batch=self.global_batch,
            seed=self.seed,
            rank=rank,
            world=world,
            position=self.clips_consumed,
        )
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader | list:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader | list:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader | list:
        return self._evaluation_loader("test")

    def clips_consumed(self) -> int:
        """Clips that training has consumed so far, over all ranks, runs before a resume included."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed * self.global_batch

    def state_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in FIXED}
        return own | {"clips": self.clips_consumed(), "fingerprint": self.source.fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in FIXED:
            if state_dict[name] != getattr(self, name):
                raise UserError(
                    f"the checkpoint was trained with data.{name} {state_dict[name]}, this run has "
                    f"{getattr(self, name)}: order or split would be others; give the same"
                )
        if state_dict["fingerprint"] != self.source.fingerprint() and not self.allow_data_change:
            raise UserError(f"{self.path} is not the data of the checkpoint; --data.allow_data_change true to go on")

    def _evaluation_loader(self, part: str) -> DataLoader | list:
        rank, world = self._rank_and_world()
        clips = self.dataset(part)
        if len(clips) == 0:
            warnings.warn(f"the {part} split of {self.path} holds no clip: nothing is measured on it", stacklevel=2)
            return []
        batch = min(max(1, self.global_batch // world), -(-len(clips) // world))
        return self._loader(clips, EvaluationSampler(len(clips), batch=batch, rank=rank, world=world))

    def _loader(self, clips: ClipDataset, sampler: Any) -> DataLoader:
        # batch_size=None: the sampler yields whole batches, which the data set fetches at once.
        return ClipLoader(
            clips,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _check_lengths(self) -> None:
        lengths, needed = self.source.lengths, clip_rows(self.num_frames, self.frameskip)
        if (lengths < needed).all():
            raise UserError(
                f"every episode of {self.path} is shorter than a clip: {self.num_frames} frames at frameskip "
                f"{self.frameskip} need {needed} rows, the longest has {lengths.max()}; "
                "lower data.num_frames or data.frameskip"
            )

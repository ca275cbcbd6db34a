"""Clips for Lightning, from an HDF5 file or a folder of shards alike."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from lewm.clip import Interface
from lewm.datasets.clips import ClipDataset
from lewm.datasets.count_bad_records import CountBadRecords
from lewm.datasets.order import EvaluationSampler, GlobalOrderSampler, windowed_permutation
from lewm.datasets.remote import is_remote, without_secrets
from lewm.datasets.remote_source import FetchAhead, RemoteSource
from lewm.datasets.schema import Source, open_source
from lewm.datasets.split import PARTS, episodes_of
from lewm.datasets.stats import action_statistics
from lewm.datasets.tar_shards import ShardSource, Verify
from lewm.datasets.windows import clip_rows
from lewm.datasets.workers import lost_workers_named, outlive_signals, signals_held
from lewm.errors import UserError

# What the order of clips and the split depend on besides the data: a checkpoint goes on only with the same.
FIXED = ("global_batch", "num_frames", "frameskip", "split_seed", "seed", "image_size", "shards_per_window")
SHARDS_PER_WINDOW = 32  # behind a URL: pooled, they mix almost as well as all


class ClipLoader(DataLoader):
    """A loader that can say that it is resumable: its position is the data module's, so its own state is empty.

    No signal to the whole group of processes meets a worker that is not ready for it, and one that is killed is named.
    """

    def __iter__(self) -> Any:
        with signals_held():
            batches = super().__iter__()
        return lost_workers_named(batches) if self.num_workers else batches

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class ClipDataModule(L.LightningDataModule):
    """Clips of a source, split by episode; its only state is the trainer's count of consumed clips.

    Args:
        path: an HDF5 file, a folder of shards, or such a folder behind a URL, as s3://bucket/folder.
        global_batch: clips per optimiser step over all ranks and accumulation; the weight of SIGReg belongs to it.
        num_frames: frames F of a clip; F - 1 predictions are made from it.
        frameskip: rows k between two frames of a clip; k actions form one block.
        image_size: side of the frames the encoder sees; null for the frames' own, others are resized on the device.
        split_seed: seed of the split by episode into 80 % train, 10 % val and 10 % test.
        seed: seed of the order of clips.
        num_workers: loader processes per rank.
        allow_data_change: resume although the data's fingerprint differs from the checkpoint's.
        cache: where shards behind a URL are kept; null for the folder that LEWM_CACHE names, else ~/.cache/lewm.
        shards_per_window: shards whose clips are permuted together, at least; null for 32 behind a URL, and for all
            of them elsewhere.
        verify: of shards, which checksums are compared when a part is first read: sizes, all but those of frames,
            so flips in raw and jpeg frames stay unseen; full, those of frames too, which reads whole episodes.
        on_bad_record: raise, or skip: a clip that cannot be read is left out, another stands in for it, and it is
            counted over all ranks as train/, val/ and test/bad_records; 100 in a row, or more than 0.1 % of a part's
            clips (at least 10), end the run.
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
        cache: str | None = None,
        shards_per_window: int | None = None,
        verify: Verify = "sizes",
        on_bad_record: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        for name, value, least in (("global_batch", global_batch, 1), ("num_frames", num_frames, 2)):
            if value < least:
                raise UserError(f"data.{name} is {value}; it must be at least {least}")
        if frameskip < 1 or num_workers < 0:
            raise UserError(f"data.frameskip is {frameskip} and data.num_workers {num_workers}; least are 1 and 0")
        self.path, self.global_batch, self.num_frames, self.frameskip = path, global_batch, num_frames, frameskip
        self.image_size, self.split_seed, self.seed, self.num_workers = image_size, split_seed, seed, num_workers
        if shards_per_window is not None and shards_per_window < 1:
            raise UserError(f"data.shards_per_window is {shards_per_window}; it must be at least 1, or null")
        self.allow_data_change = allow_data_change
        self.cache, self._window = cache, shards_per_window
        self.verify: Verify = verify
        self.on_bad_record = on_bad_record

    @cached_property
    def source(self) -> Source:
        """The opened data; UserError for what is wrong with it."""
        source = open_source(self.path, cache=self.cache)
        if isinstance(source, ShardSource):
            source.verify = self.verify
        elif self.verify == "full":
            warnings.warn(f"{self.path} keeps no checksums to verify; `lewm convert` gives it some", stacklevel=2)
        return source

    def episodes(self, part: str) -> np.ndarray:
        """Numbers of the episodes in a part of the split."""
        return episodes_of(part, self.split_seed, self.source.keys)

    def dataset(self, part: str) -> ClipDataset:
        """Clips of a part of the split."""
        episodes = self.episodes(part)
        skip = self.on_bad_record == "skip"
        return ClipDataset(self.source, episodes, num_frames=self.num_frames, frameskip=self.frameskip, skip=skip)

    @property
    def shown(self) -> str:
        """The path as it may be printed: a URL without what must stay secret."""
        return without_secrets(str(self.path))

    @cached_property
    def shards_per_window(self) -> int | None:
        """Windows of the order in force; None for one permutation of all clips, as where all shards are one window."""
        if self._window is None and not is_remote(self.path):
            return None
        if not isinstance(self.source, ShardSource):
            raise UserError(f"data.shards_per_window is {self._window} but {self.path} is not made of shards; set null")
        window = self._window or SHARDS_PER_WINDOW
        return window if len(self.source.manifest["shards"]) // window > 1 else None

    def _clips_per_shard(self) -> np.ndarray | None:
        """Training clips of each shard; None where there are no shards."""
        if not isinstance(self.source, ShardSource):
            return None
        episodes = [shard["episodes"] for shard in self.source.manifest["shards"]]
        owner = np.repeat(np.arange(len(episodes)), episodes)[self.train.episodes]
        return np.bincount(owner, weights=self.train.starts, minlength=len(episodes)).astype(np.int64)

    @cached_property
    def train(self) -> ClipDataset:
        """Training clips; UserError if there are fewer than one global batch."""
        self._check_lengths()
        train = self.dataset("train")
        if len(train) < self.global_batch:
            raise UserError(
                f"data.global_batch is {self.global_batch} but the training split of {self.shown} has {len(train)} "
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
            raise UserError(f"frames of {self.shown} are {h} x {w}; set data.image_size to make them square")
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
        sheet: dict[str, Any] = {"path": self.shown, "fingerprint": self.source.fingerprint()}
        for part in PARTS:
            clips = self.dataset(part)
            short = int((clips.starts == 0).sum())
            sheet[part] = {"episodes": len(clips.episodes), "clips": len(clips), "too_short": short}
        return sheet

    def setup(self, stage: str) -> None:
        if stage != "predict" and self.on_bad_record == "skip":
            assert self.trainer is not None
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            if not any(isinstance(callback, CountBadRecords) for callback in callbacks):
                callbacks.insert(0, CountBadRecords(lambda part: len(self.dataset(part))))

    def train_dataloader(self) -> DataLoader:
        rank, world = self._rank_and_world()
        if self.global_batch % world:
            sizes = [size * world for size in (self.global_batch // world, self.global_batch // world + 1) if size]
            raise UserError(f"data.global_batch is {self.global_batch}, not a multiple of {world} ranks; try {sizes}")
        clips, window = self._clips_per_shard(), self.shards_per_window
        drawing: dict[str, Any] = {}
        if clips is not None and window is not None:
            drawing["order"] = partial(windowed_permutation, clips_per_shard=clips, window=window)
        if clips is not None and isinstance(self.source, RemoteSource):
            ahead = {"seed": self.seed, "window": window or len(clips), "rank": rank, "world": world}
            drawing["before"] = FetchAhead(self.source, clips, **ahead)
        sampler = GlobalOrderSampler(
            len(self.train),
            global_batch=self.global_batch,
            seed=self.seed,
            rank=rank,
            world=world,
            position=self.clips_consumed,
            **drawing,
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
            # Checkpoints of earlier versions know no windows.
            if state_dict.get(name) != getattr(self, name):
                raise UserError(
                    f"the checkpoint was trained with data.{name} {state_dict.get(name)}, this run has "
                    f"{getattr(self, name)}: order or split would be others; give the same"
                )
        if state_dict["fingerprint"] != self.source.fingerprint() and not self.allow_data_change:
            raise UserError(f"{self.shown} is not the data of the checkpoint; --data.allow_data_change true to go on")

    def _evaluation_loader(self, part: str) -> DataLoader | list:
        rank, world = self._rank_and_world()
        clips = self.dataset(part)
        if len(clips) == 0:
            warnings.warn(f"the {part} split of {self.shown} holds no clip: nothing is measured on it", stacklevel=2)
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
            worker_init_fn=outlive_signals,
        )

    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _check_lengths(self) -> None:
        lengths, needed = self.source.lengths, clip_rows(self.num_frames, self.frameskip)
        if (lengths < needed).all():
            raise UserError(
                f"every episode of {self.shown} is shorter than a clip: {self.num_frames} frames at frameskip "
                f"{self.frameskip} need {needed} rows, the longest has {lengths.max()}; "
                "lower data.num_frames or data.frameskip"
            )

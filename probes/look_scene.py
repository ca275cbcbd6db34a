"""What `lewm look` looks at: a frozen model, and frames of each part of the data with their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes.cache import Cache
from lewm.probes.controls import calibrated, calibration_frames
from lewm.probes.decoder import Pictures
from lewm.probes.features import ModelReader, Table, device_of, extract
from lewm.probes.frames import Frames, choose_frames, read_frames, union
from lewm.probes.nearest import Neighbours
from lewm.probes.parts import Parts
from lewm.probes.seams import Reader
from lewm.probes.setting import Setting
from lewm.probes.targets import Quantity

JUDGED = 4  # times as many training frames as frames of val and of test
LEAST = 50  # training frames below which a decoder makes no sense


@dataclass(frozen=True)
class Scene:
    """A frozen model, data and the frames that are looked at, each embedded once."""

    setting: Setting
    source: Source
    parts: Parts
    frames: dict[str, Frames]  # by part
    table: Table
    untrained: Any
    quantities: list[Quantity]

    @cached_property
    def pixels(self) -> dict[str, np.ndarray]:
        """Frames of each part: (n, h, w, c) uint8."""
        return {part: read_frames(self.source, frames) for part, frames in self.frames.items()}

    def pictures(self, part: str, name: str = "embedding") -> Pictures:
        """A part's frames with embeddings of the model, or of the untrained network."""
        frames = self.frames[part]
        return Pictures(self.table.at(name, frames), self.pixels[part], frames.episode)

    @property
    def neighbours(self) -> Neighbours:
        """The training frames."""
        return Neighbours(self.source, self.frames["train"], self.table.at("embedding", self.frames["train"]))

    @property
    def device(self) -> Any:
        """That of the model."""
        return device_of(self.setting.model)


def set_up(
    setting: Setting, source: Source, parts: Parts, quantities: list[Quantity], max_frames: int, cache: Cache
) -> Scene:
    """Choose frames of each part and embed them, by the model and by the same network untrained."""
    episodes = {"train": parts.train, "val": parts.val, "test": parts.test}
    num = {"train": max_frames, "val": max_frames // JUDGED, "test": max_frames // JUDGED}
    frames = {part: choose_frames(source.lengths, own, num[part]) for part, own in episodes.items()}
    if len(frames["train"]) < LEAST:
        raise UserError(
            f"{source.path} has {len(frames['train'])} training frames, and a decoder needs at least {LEAST}; give "
            "more episodes"
        )
    untrained = calibrated(setting.untrained, calibration_frames(source, frames["train"]))
    readers: list[Reader] = [
        ModelReader(setting.model, ("embedding",)),
        ModelReader(untrained, ("embedding",), prefix="untrained/"),
    ]
    table = extract(source, union(list(frames.values())), readers, cache)
    if not np.ptp(table.features["embedding"], axis=0).any():
        raise UserError(f"{setting.checkpoint} gives every frame the same embedding: there is nothing to look at")
    return Scene(setting, source, parts, frames, table, untrained, quantities)

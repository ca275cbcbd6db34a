"""Ordinary steps: the errors a model makes on validation episodes, where nothing is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Int

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source, open_source
from lewm.datasets.split import episodes_of
from lewm.datasets.windows import action_blocks, frame_rows
from lewm.errors import UserError
from lewm.probes.calibration import FEWEST, Calibration, Ordinary
from lewm.probes.depths import known_before, open_loop_errors
from lewm.probes.features import device_of
from lewm.probes.setting import Setting, check_fits
from lewm.progress import track

MAX_CLIPS = 400


@dataclass(frozen=True)
class Part:
    """Some episodes of a data set."""

    source: Source
    episodes: Int[np.ndarray, " m"]

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """Each episode with a hash of its first frame and its actions, which is the same in any copy of the data."""
        for episode in map(int, self.episodes):
            found = hashlib.blake2b(self.source.frames(episode, np.array([0])).tobytes())
            found.update(self.source.actions(episode)[:-1].tobytes())
            yield episode, found.digest()


def find_reference(setting: Setting, name: str, measured: Part | None) -> tuple[Part | None, str]:
    """Validation episodes of the data set named, and why there are none where there are none.

    `auto` takes the measured data set, for clips from elsewhere the one the model was trained on, if it is still where
    it was. Episodes that are measured themselves, under whatever name, cannot say what is ordinary. UserError where a
    data set is named and does not fit, or has no others.
    """
    interface = setting.model.interface
    if name == "none":
        return None, "not asked for"
    if name != "auto":
        source = open_source(name)
        check_fits(source.frame_shape, source.action_dim, interface, name)
    elif measured is not None:
        source = measured.source
    elif (found := trained_on(setting)) is not None:
        source = found
    else:
        return None, "the data the model was trained on are not at hand; name them with --reference PATH"
    part = Part(source, episodes_of("val", interface.split_seed, source.keys))
    taken = set() if measured is None else {content for _, content in measured.contents()}
    others = [episode for episode, content in part.contents() if content not in taken]
    if not others:
        why = f"every validation episode of {source.path} is measured itself; name other data with --reference PATH"
        if name != "auto":
            raise UserError(why)
        return None, why
    return Part(source, np.array(others)), ""


def trained_on(setting: Setting) -> Source | None:
    """The data set named in the run's config, if it is there, the same, and of the size that the model takes."""
    run = checkpoints.run_folder(setting.checkpoint)
    if run is None or not (run / "config.yaml").is_file():
        return None
    path = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("data", {}).get("path")
    if path is None or not Path(path).exists():
        return None
    try:
        source = open_source(path)
    except UserError:
        return None
    return source if source.fingerprint() == setting.model.interface.fingerprint else None


def find_calibrations(
    setting: Setting, reference: str, measured: Part | None, num_frames: int, depth: int
) -> tuple[list[Calibration] | None, dict[str, Any]]:
    """Calibrations for each depth and what the result says of them; none, with the reason, where it cannot be."""
    found, why = find_reference(setting, reference, measured)
    if found is None:
        return None, {"reference": None, "not_calibrated": why}
    try:
        made = calibrate(setting, found, num_frames, depth)
    except UserError as error:
        if reference != "auto":
            raise
        return None, {"reference": None, "not_calibrated": str(error)}
    about = {"path": str(found.source.path), "fingerprint": found.source.fingerprint(), "split": "val"}
    return made, {"reference": about | {"episodes": len(found.episodes), "steps": len(made[0].ranks)}}


def calibrate(setting: Setting, reference: Part, num_frames: int, depth: int) -> list[Calibration]:
    """A calibration for each rollout depth, from clips of the same length as the measured ones.

    Deeper predictions are fewer: depths without enough of them are left out. UserError where there are none at all.
    """
    found = ordinary_steps(setting.model, reference, num_frames, depth)
    if not found:
        raise UserError(f"no validation episode of {reference.source.path} is longer than the model's frameskip")
    deeper = takewhile(lambda ordinary: len(ordinary.error) >= FEWEST, found[1:])
    return [Calibration(ordinary, seed=setting.seed) for ordinary in (found[0], *deeper)]


@torch.inference_mode()
def ordinary_steps(model: Any, reference: Part, num_frames: int, depth: int) -> list[Ordinary]:
    """Errors at every step of the episodes, cut into clips of at most `num_frames`, by rollout depth."""
    k, source = model.interface.frameskip, reference.source
    found: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in range(depth)]
    for episode, start, num in track(clips_of(reference, num_frames, k), "ordinary steps"):
        pixels = source.frames(episode, frame_rows(start, num, k))[None]
        actions = action_blocks(source.actions(episode), start, num, k)[None]
        frames, blocks = (torch.from_numpy(x).to(device_of(model)) for x in (pixels, actions))
        z = model.encode(frames).float()
        errors = open_loop_errors(model, z, blocks, depth)
        known = known_before(model, z, blocks, errors)
        for n, steps in enumerate(found[: num - 1]):
            e, before = (x[0, n, n:].cpu().numpy() for x in (errors, known))
            steps.append((e, before, np.full(len(e), episode)))
    return [Ordinary(*map(np.concatenate, zip(*steps, strict=True))) for steps in found if steps]


def clips_of(reference: Part, num_frames: int, frameskip: int) -> list[tuple[int, int, int]]:
    """Episode, start row and frames of clips that follow one another, the last of an episode being what is left.

    A clip begins with the frame that ends the one before it, so that no step is counted twice and none left out;
    `MAX_CLIPS` of them are spread evenly.
    """
    every = []
    for episode in map(int, reference.episodes):
        frames = (int(reference.source.lengths[episode]) - 1) // frameskip + 1
        for first in range(0, frames - 1, num_frames - 1):
            every.append((episode, first * frameskip, min(num_frames, frames - first)))
    kept = min(len(every), MAX_CLIPS)
    return [every[i] for i in np.arange(kept) * len(every) // max(kept, 1)]

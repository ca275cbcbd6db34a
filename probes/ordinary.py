"""Ordinary steps: the errors a model makes on validation episodes, where nothing is wrong."""

from __future__ import annotations

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
from lewm.datasets.windows import action_blocks, frame_rows, num_starts
from lewm.errors import UserError
from lewm.probes.calibration import FEWEST, Calibration, Ordinary
from lewm.probes.depths import known_before, open_loop_errors
from lewm.probes.features import device_of
from lewm.probes.setting import Setting, check_fits
from lewm.progress import track

MAX_CLIPS = 400


@dataclass(frozen=True)
class Reference:
    """Episodes that say what is ordinary."""

    source: Source
    episodes: Int[np.ndarray, " m"]


def find_reference(setting: Setting, name: str, measured: Source | None, split: str) -> tuple[Reference | None, str]:
    """Validation episodes of the data set named, and why there are none where there are none.

    `auto` takes the measured data set, for clips from elsewhere the one the model was trained on, if it is still where
    it was. Episodes that are measured themselves cannot say what is ordinary: with `split` val every second one does,
    with all none. UserError where a data set is named and does not fit.
    """
    interface = setting.model.interface
    if name == "none":
        return None, "not asked for"
    if name != "auto":
        source = open_source(name)
        check_fits(source.frame_shape, source.action_dim, interface, name)
    elif measured is not None:
        source = measured
    elif (found := trained_on(setting)) is not None:
        source = found
    else:
        return None, "the data the model was trained on are not at hand; name them with --reference PATH"
    same = measured is not None and source.fingerprint() == measured.fingerprint()
    if same and split == "all":
        return None, "all episodes are measured; name others with --reference PATH"
    episodes = episodes_of("val", interface.split_seed, source.keys)
    return Reference(source, episodes[::2] if same and split == "val" else episodes), ""


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


def calibrate(setting: Setting, reference: Reference, num_frames: int, depth: int) -> list[Calibration]:
    """A calibration for each rollout depth, from clips of the same length as the measured ones.

    Deeper predictions are fewer: depths without enough of them are left out. UserError where there are none at all.
    """
    found = ordinary_steps(setting.model, reference, num_frames, depth)
    deeper = takewhile(lambda ordinary: len(ordinary.error) >= FEWEST, found[1:])
    return [Calibration(ordinary, seed=setting.seed) for ordinary in (found[0], *deeper)]


@torch.inference_mode()
def ordinary_steps(model: Any, reference: Reference, num_frames: int, depth: int) -> list[Ordinary]:
    """Errors at every step of clips that follow one another in each episode, by rollout depth."""
    k, source = model.interface.frameskip, reference.source
    errors, known, episodes = [], [], []
    for episode, start in track(clips_of(reference, num_frames, k), "ordinary steps"):
        pixels = source.frames(episode, frame_rows(start, num_frames, k))[None]
        actions = action_blocks(source.actions(episode), start, num_frames, k)[None]
        frames, blocks = (torch.from_numpy(x).to(device_of(model)) for x in (pixels, actions))
        z = model.encode(frames).float()
        e = open_loop_errors(model, z, blocks, depth)
        errors.append(e[0].cpu().numpy())
        known.append(known_before(model, z, blocks, e)[0].cpu().numpy())
        episodes.append(episode)
    if not errors:
        return [Ordinary(np.empty((0, 1)), np.empty((0, 2)), np.empty(0, dtype=int))] * depth
    e, kn = np.stack(errors), np.stack(known)  # (clips, depths, steps, d), (clips, depths, steps, 2)
    return [
        Ordinary(
            e[:, n, n:].reshape(-1, e.shape[-1]),
            kn[:, n, n:].reshape(-1, 2),
            np.repeat(episodes, e.shape[2] - n),
        )
        for n in range(depth)
    ]


def clips_of(reference: Reference, num_frames: int, frameskip: int) -> list[tuple[int, int]]:
    """Episode and start row of clips that follow one another without overlap, `MAX_CLIPS` of them spread evenly."""
    starts = num_starts(reference.source.lengths, num_frames, frameskip)
    every = [(int(e), s) for e in reference.episodes for s in range(0, int(starts[e]), (num_frames - 1) * frameskip)]
    return [every[i] for i in np.arange(min(len(every), MAX_CLIPS)) * len(every) // max(min(len(every), MAX_CLIPS), 1)]

"""`lewm surprise`: tests violation of expectation, writes the results and prints a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes import plots, tables
from lewm.probes import results as io
from lewm.probes.clips import KINDS, disturbed_triples, is_triples, read_triples
from lewm.probes.controls import CALIBRATED, calibrated, calibration_frames
from lewm.probes.features import device_of
from lewm.probes.frames import choose_frames
from lewm.probes.parts import measured_episodes
from lewm.probes.setting import Setting, check_fits, prepare
from lewm.probes.surprise import Steps, aligned, allow_resize, score_triples, scorers, summarise

TITLES = {
    "model": "Model",
    "untrained": "Untrained model",
    "pixel_difference": "Pixel difference",
    "copy_last": "Change of embedding",
}


def surprise(
    checkpoint: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    split: str = "test",
    resize: bool = False,
    seed: int = 0,
    max_clips: int = 200,
) -> dict[str, Any]:
    """Test violation of expectation, on a file of triples or on disturbed episodes of a data set."""
    if max_clips < 1:
        raise UserError(f"--max-clips is {max_clips}; it must be at least 1")
    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, io.out_folder(out, [path], "surprise"), seed)
    if resize:
        allow_resize(setting.model)
    found = triples_of_file if is_triples(data) else triples_of_episodes
    steps, about = found(setting, data, split, max_clips)
    summaries = {name: summarise(s, steps.event, steps.group, seed=seed) for name, s in steps.by_scorer.items()}
    result = (
        setting.describe(data, about.pop("fingerprint"), about.pop("split"))
        | about
        | {"n": len(steps.event), "groups": len(np.unique(steps.group)), "steps": steps.by_scorer["model"].shape[2]}
        | {"resize": resize}
        | summaries.pop("model")
        | {"baselines": summaries}
    )
    result = io.write_result(result, surprise_figures(steps), setting.out)
    tables.print_surprise(result)
    return result


def triples_of_file(setting: Setting, path: str | Path, split: str, max_clips: int) -> tuple[Steps, dict[str, Any]]:
    """Surprise along the clips of a file, all of which are used: they belong to no split."""
    model, k = setting.model, setting.model.interface.frameskip
    first = next(read_triples(path, k, 1))
    check_fits(first.pixels.shape[2:], first.actions.shape[-1], model.interface, path)
    unperturbed = [torch.from_numpy(triple.pixels[0]) for triple in read_triples(path, k, 16)]
    compared = scorers(model, calibrated(setting.untrained, torch.cat(unperturbed)))
    steps = score_triples(read_triples(path, k, max_clips), compared, device_of(model))
    return steps, {"clips": "triples of a file", "fingerprint": io.sha256(Path(path)), "split": "all"}


def triples_of_episodes(setting: Setting, path: str | Path, split: str, max_clips: int) -> tuple[Steps, dict[str, Any]]:
    """Surprise along disturbed clips of a data set's episodes."""
    source, model = open_source(path), setting.model
    check_fits(source.frame_shape, source.action_dim, model.interface, path)
    episodes = measured_episodes(source, split, model.interface.split_seed)
    frames = choose_frames(source.lengths, episodes, CALIBRATED)
    triples = disturbed_triples(source, episodes, model.interface.frameskip, max_clips, setting.seed)
    compared = scorers(model, calibrated(setting.untrained, calibration_frames(source, frames)))
    steps = score_triples(triples, compared, device_of(model))
    about = {"clips": "disturbed episodes", "fingerprint": source.fingerprint(), "split": split}
    return steps, about


def surprise_figures(steps: Steps) -> dict[str, Any]:
    """Curves around the event, and all scores by kind."""
    around = {kind: aligned(steps.by_scorer["model"][:, i], steps.event) for i, kind in enumerate(KINDS)}
    relative, curves = around["physical"][0], {kind: values for kind, (_, values) in around.items()}
    scores = {name: {kind: s[:, i].max(axis=1) for i, kind in enumerate(KINDS)} for name, s in steps.by_scorer.items()}
    return {"curves": plots.surprise_curves(relative, curves), "scores": plots.score_strips(scores, TITLES)}

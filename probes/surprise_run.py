"""`lewm surprise`: tests violation of expectation, writes the results and prints tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import open_source
from lewm.datasets.violation import PLAIN, RecordedViolation, kinds_of, registry
from lewm.errors import UserError
from lewm.paths import written_atomically
from lewm.probes import results as io
from lewm.probes.calibration import Calibration
from lewm.probes.clip_folder import is_clip_folder, read_clip_folder
from lewm.probes.clip_reader import is_clip_file, read_clip_file
from lewm.probes.controls import CALIBRATED, calibrated, calibration_frames
from lewm.probes.disturbed import disturbed
from lewm.probes.features import device_of
from lewm.probes.frames import choose_frames
from lewm.probes.ordinary import Part, find_calibrations
from lewm.probes.parts import measured_episodes
from lewm.probes.setting import Setting, check_fits, prepare
from lewm.probes.surprise import (
    ModelScorer,
    Steps,
    alarms,
    allow_resize,
    depth_name,
    one_step,
    pixel_difference,
    score_trials,
    summarise,
)
from lewm.probes.surprise_figures import surprise_figures
from lewm.probes.surprise_tables import print_surprise
from lewm.probes.trials import Trials

BASELINES = ("untrained", "pixel_difference", "copy_last")
CALIBRATION_TRIALS = 16  # from whose plain clips the untrained network takes its statistics, where there is no data set


def surprise(
    checkpoint: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    split: str = "test",
    kinds: str = "all",
    reference: str = "auto",
    depth: int = 4,
    resize: bool = False,
    max_clips: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Test violation of expectation, on clips made elsewhere or on disturbed episodes of a data set."""
    for name, value in (("max_clips", max_clips), ("depth", depth)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1")
    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, io.out_folder(out, [path], "surprise"), seed)
    if resize:
        allow_resize(setting.model)
    halve = split == "val" and reference == "auto"
    trials, measured = find_trials(setting, data, split, kinds, max_clips, halve)
    num_frames = len(next(iter(trials.each)).plain.pixels)
    depth = min(depth, num_frames - 1)
    calibrations, about = find_calibrations(setting, reference, measured, num_frames, depth)
    scorers = [
        ModelScorer(setting.model, depth, calibrations),
        one_step(calibrated(setting.untrained, frames_of(measured, trials)), "untrained"),
        pixel_difference,
    ]
    steps = score_trials(trials, scorers, device_of(setting.model))
    result = setting.describe(data, trials.fingerprint, trials.split) | describe(steps, trials, resize) | about
    result |= summarise(steps, "model", seed=seed)
    result["baselines"] = {name: summarise(steps, name, seed=seed) for name in BASELINES}
    if "fading" in steps.by_scorer:
        result["fading"] = summarise(steps, "fading", seed=seed)
    result["depths"] = {n: summarise(steps, depth_name("model", n), seed=seed) for n in range(2, depth + 1)}
    if calibrations is not None:
        result["calibrated"] = summarise(steps, "calibrated", seed=seed)
        result["calibrated_depths"] = {
            n: summarise(steps, depth_name("calibrated", n), seed=seed) for n in range(2, len(calibrations) + 1)
        }
        result["alarms"] = alarms(steps, calibrations[0], seed=seed)
    write_steps(steps, calibrations, setting.out / "steps.npz")
    result = io.write_result(result, surprise_figures(steps, trials), setting.out)
    print_surprise(result)
    return result


def find_trials(
    setting: Setting, data: str | Path, split: str, kinds: str, max_clips: int, halve: bool
) -> tuple[Trials, Part | None]:
    """Clips of a file or of a folder, or episodes of a data set, disturbed; and these episodes.

    With `halve` every second one is left to say what is ordinary.
    """
    interface = setting.model.interface
    if is_clip_file(data) or is_clip_folder(data):
        for flag, value, default in (("kinds", kinds, "all"), ("split", split, "test")):
            if value != default:
                raise UserError(f"{data} has clips of its own, all of which are judged; --{flag} is for data sets")
        read = read_clip_file if is_clip_file(data) else read_clip_folder
        trials = read(data, interface.frameskip, max_clips)
        first = next(iter(trials.each)).plain
        check_fits(first.pixels.shape[1:], first.actions.shape[-1], interface, data)
        return trials, None
    source = open_source(data)
    check_fits(source.frame_shape, source.action_dim, interface, data)
    episodes = measured_episodes(source, split, interface.split_seed)
    violations = kinds_of(RecordedViolation, named(kinds))
    if halve:
        episodes = episodes[1::2]
    trials = disturbed(source, episodes, interface.frameskip, violations, max_clips, setting.seed, split=split)
    return trials, Part(source, episodes)


def named(kinds: str) -> list[str]:
    """Names by commas; none for all. UserError where nothing is named."""
    names = [name.strip() for name in kinds.split(",") if name.strip()]
    if not names or ("all" in names and len(names) > 1):
        raise UserError(f"--kinds is {kinds!r}; name kinds by commas, or all alone")
    return [] if names == ["all"] else names


def frames_of(measured: Part | None, trials: Trials) -> torch.Tensor:
    """Ordinary frames from which the untrained network takes its statistics."""
    if measured is None:
        plain = [trial.plain.pixels for trial, _ in zip(trials.each, range(CALIBRATION_TRIALS), strict=False)]
        return torch.from_numpy(np.concatenate(plain))
    source = measured.source
    return calibration_frames(source, choose_frames(source.lengths, measured.episodes, CALIBRATED))


def describe(steps: Steps, trials: Trials, resize: bool) -> dict[str, Any]:
    """What was scored, and how often nothing happened."""
    absent, known = (steps.event < 0).sum(axis=0), registry()
    return {
        "clips": trials.what,
        "n": len(steps.group),
        "groups": len(np.unique(steps.group)),
        "steps": steps.by_scorer["model"].shape[2],
        "natures": trials.natures,
        "lasts": {kind: known[kind].lasts for kind in trials.natures if kind in known},
        "excluded": {kind: int(count) for kind, count in zip(trials.natures, absent, strict=True)},
        "resize": resize,
    }


def write_steps(steps: Steps, calibrations: list[Calibration] | None, path: Path) -> None:
    """Every step of every clip: scores (n, v, i) by name, `p_value`, and the model's squared errors (n, v, i, d).

    `kinds` names v, the clip as it was first; `event` (n, v) is -1 where nothing happens, `group` (n,) the episode.
    """
    arrays: dict[str, Any] = dict(steps.by_scorer)
    arrays["kinds"] = np.array([PLAIN, *steps.natures])
    arrays["event"] = np.concatenate([np.full((len(steps.event), 1), -1), steps.event], axis=1)
    arrays["group"], arrays["per_dimension"] = steps.group, steps.per_dimension
    if calibrations is not None:
        arrays["p_value"] = calibrations[0].p_values(steps.by_scorer["calibrated"])
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)

"""`lewm surprise`: tests violation of expectation, writes the results and prints tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source, open_source
from lewm.datasets.violation import RecordedViolation, kinds_of
from lewm.errors import UserError
from lewm.paths import written_atomically
from lewm.probes import results as io
from lewm.probes.calibration import Calibration
from lewm.probes.clip_file import is_clip_file, read_clip_file
from lewm.probes.clip_folder import is_clip_folder, read_clip_folder
from lewm.probes.controls import CALIBRATED, calibrated, calibration_frames
from lewm.probes.disturbed import disturbed
from lewm.probes.features import device_of
from lewm.probes.frames import choose_frames
from lewm.probes.ordinary import calibrate, find_reference
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
from lewm.probes.watch import watch_with

BASELINES = ("untrained", "pixel_difference", "copy_last")
CALIBRATION_TRIALS = 16  # from whose plain clips the untrained network takes its statistics, where there is no data set
WATCHED_FRAMES = 12  # of the clips whose steps say what is ordinary along a video


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
    for name, value in (("max-clips", max_clips), ("depth", depth)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1")
    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, io.out_folder(out, [path], "surprise"), seed)
    if resize:
        allow_resize(setting.model)
    trials, source = find_trials(setting, data, split, kinds, max_clips)
    num_frames = len(next(iter(trials.each)).plain.pixels)
    depth = min(depth, num_frames - 1)
    calibrations, about = find_calibrations(setting, reference, source, split, num_frames, depth)
    scorers = [
        ModelScorer(setting.model, depth, calibrations),
        one_step(calibrated(setting.untrained, frames_of(source, setting, split, trials)), "untrained"),
        pixel_difference,
    ]
    steps = score_trials(trials, scorers, device_of(setting.model))
    result = setting.describe(data, trials.fingerprint, trials.split) | describe(steps, trials, resize) | about
    result |= summarise(steps, "model", seed=seed)
    result["baselines"] = {name: summarise(steps, name, seed=seed) for name in BASELINES}
    if result["steps"] > 1:  # the last step of a clip cannot fade
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
    setting: Setting, data: str | Path, split: str, kinds: str, max_clips: int
) -> tuple[Trials, Source | None]:
    """Clips of a file or of a folder, or the episodes of a data set, disturbed; and the data set, if it is one."""
    interface = setting.model.interface
    if is_clip_file(data) or is_clip_folder(data):
        if kinds != "all":
            raise UserError(f"{data} has kinds of its own; --kinds is for data sets of episodes, which are disturbed")
        read = read_clip_file if is_clip_file(data) else read_clip_folder
        trials = read(data, interface.frameskip, max_clips)
        first = next(iter(trials.each)).plain
        check_fits(first.pixels.shape[1:], first.actions.shape[-1], interface, data)
        return trials, None
    source = open_source(data)
    check_fits(source.frame_shape, source.action_dim, interface, data)
    episodes = measured_episodes(source, split, interface.split_seed)
    violations = kinds_of(RecordedViolation, named(kinds))
    if split == "val":
        episodes = episodes[1::2]  # the others say what is ordinary
    trials = disturbed(source, episodes, interface.frameskip, violations, max_clips, setting.seed, split=split)
    return trials, source


def named(kinds: str) -> list[str]:
    """Names by commas; none for all."""
    return [] if kinds == "all" else [name.strip() for name in kinds.split(",") if name.strip()]


def find_calibrations(
    setting: Setting, reference: str, source: Source | None, split: str, num_frames: int, depth: int
) -> tuple[list[Calibration] | None, dict[str, Any]]:
    """Calibrations for each depth and what the result says of them; none, with the reason, where it cannot be."""
    found, why = find_reference(setting, reference, source, split)
    if found is None:
        return None, {"reference": None, "not_calibrated": why}
    try:
        made = calibrate(setting, found, num_frames, depth)
    except UserError as error:
        if reference != "auto":
            raise
        return None, {"reference": None, "not_calibrated": str(error)}
    about = {"path": str(found.source.path), "fingerprint": found.source.fingerprint(), "split": "val"}
    counts = {"episodes": len(found.episodes), "steps": len(made[0].ranks)}
    return made, {"reference": about | counts}


def frames_of(source: Source | None, setting: Setting, split: str, trials: Trials) -> torch.Tensor:
    """Ordinary frames from which the untrained network takes its statistics."""
    if source is None:
        plain = [trial.plain.pixels for trial, _ in zip(trials.each, range(CALIBRATION_TRIALS), strict=False)]
        return torch.from_numpy(np.concatenate(plain))
    episodes = measured_episodes(source, split, setting.model.interface.split_seed)
    return calibration_frames(source, choose_frames(source.lengths, episodes, CALIBRATED))


def describe(steps: Steps, trials: Trials, resize: bool) -> dict[str, Any]:
    """What was scored, and how often nothing happened."""
    absent = (steps.event < 0).sum(axis=0)
    return {
        "clips": trials.what,
        "n": len(steps.group),
        "groups": len(np.unique(steps.group)),
        "steps": steps.by_scorer["model"].shape[2],
        "natures": trials.natures,
        "excluded": {kind: int(count) for kind, count in zip(trials.natures, absent, strict=True)},
        "resize": resize,
    }


def write_steps(steps: Steps, calibrations: list[Calibration] | None, path: Path) -> None:
    """Every step of every clip: scores (n, v, i) by name, `p_value`, and the model's squared errors (n, v, i, d).

    `kinds` names v, the clip as it was first; `event` (n, v) is -1 where nothing happens, `group` (n,) the episode.
    """
    arrays: dict[str, Any] = dict(steps.by_scorer)
    arrays["kinds"] = np.array(["unperturbed", *steps.natures])
    arrays["event"] = np.concatenate([np.full((len(steps.event), 1), -1), steps.event], axis=1)
    arrays["group"], arrays["per_dimension"] = steps.group, steps.per_dimension
    if calibrations is not None:
        arrays["p_value"] = calibrations[0].p_values(steps.by_scorer["calibrated"])
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def watch_video(
    checkpoint: str | Path,
    *,
    video: str | Path,
    actions: str | Path,
    out: str | Path | None = None,
    reference: str = "auto",
    resize: bool = False,
    seed: int = 0,
) -> Path:
    """Write the video with its surprise drawn beneath, steps of p at most `ALARM` marked; returns its path."""
    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, io.out_folder(out, [path], "watch"), seed)
    if resize:
        allow_resize(setting.model)
    calibrations, _ = find_calibrations(setting, reference, None, "test", WATCHED_FRAMES, depth=1)
    scorer, found = ModelScorer(setting.model, 1, calibrations), {}

    def steps(pixels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        found.update(scorer(pixels, blocks))
        return found["model"]

    def p_values(_: np.ndarray) -> np.ndarray:
        assert calibrations is not None
        return calibrations[0].p_values(found["calibrated"][0].numpy())

    rare = None if calibrations is None else p_values
    return watch_with(setting.model, video=video, actions=actions, out=setting.out, steps=steps, p_values=rare)

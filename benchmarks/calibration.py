"""Do p-values of calibrated surprise hold on new episodes? One step from each of 500 validation and 500 test episodes.

    python benchmarks/calibration.py RUN [FOLDER]

Collects Two-Room (or uses what it collected before into FOLDER), draws the steps with 20 seeds, and prints in how many
of them a two-sample Kolmogorov-Smirnov test at 5 % tells test scores from validation scores, and how often an ordinary
test step has p <= 0.01, with an interval over episodes.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ks_2samp

import lewm
from lewm.datasets.collect import collect
from lewm.datasets.schema import Source, open_source
from lewm.datasets.windows import action_blocks, frame_rows, num_starts
from lewm.envs import make_policy, make_world
from lewm.probes.calibration import Calibration, Ordinary
from lewm.probes.depths import known_before, open_loop_errors
from lewm.probes.statistics import rate
from lewm.progress import track

EPISODES, SEEDS, LEVEL = 500, 20, 0.01
COLLECTED = 640  # some are too short for a step with all its history


def episodes(folder: Path, name: str, image_size: int, seed: int) -> Source:
    if not (folder / name).exists():
        world, policy = (
            partial(make_world, "two_room", image_size=image_size),
            partial(make_policy, "two_room", "expert"),
        )
        collect(world, policy, folder / name, episodes=COLLECTED, seed=seed)
    return open_source(folder / name)


@torch.inference_mode()
def every_step(model, source: Source) -> list[Ordinary]:
    """The steps with a full history of the first `EPISODES` episodes that have one, an episode at a time."""
    k, frames = model.interface.frameskip, model.interface.history + 1
    long = np.flatnonzero(num_starts(source.lengths, frames, k) > 0)[:EPISODES]
    assert len(long) == EPISODES, f"only {len(long)} episodes of {source.path} are long enough"
    found = []
    for episode in track([int(e) for e in long], f"steps of {source.path.name}"):
        starts = np.arange(0, int(num_starts(source.lengths[[episode]], frames, k)[0]), k)
        rows = np.stack([frame_rows(int(s), frames, k) for s in starts])
        pixels = source.frames(episode, np.unique(rows))[np.unique(rows, return_inverse=True)[1].reshape(rows.shape)]
        actions = np.stack([action_blocks(source.actions(episode), int(s), frames, k) for s in starts])
        z = model.encode(torch.from_numpy(pixels)).float()
        errors = open_loop_errors(model, z, torch.from_numpy(actions), 1)
        known = known_before(model, z, torch.from_numpy(actions), errors)
        found.append(Ordinary(errors[:, 0, -1].numpy(), known[:, 0, -1].numpy(), np.full(len(starts), episode)))
    return found


def one_each(steps: list[Ordinary], rng: np.random.Generator) -> Ordinary:
    drawn = [rng.integers(len(s.error)) for s in steps]
    parts = [(s.error[i], s.known[i], s.episode[i]) for s, i in zip(steps, drawn, strict=True)]
    return Ordinary(*(np.stack(values) for values in zip(*parts, strict=True)))


def main() -> None:
    model = lewm.load(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    size = model.interface.image_size
    val, test = (every_step(model, episodes(folder, name, size, seed)) for name, seed in (("val", 31), ("test", 32)))
    rejected, alarms, groups = 0, [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        calibration, new = Calibration(one_each(val, rng), seed=seed), one_each(test, rng)
        scores = calibration.score(new.error, new.known)
        rejected += ks_2samp(calibration.ranks, scores).pvalue < 0.05
        alarms.append(calibration.p_values(scores) <= LEVEL)
        groups.append(new.episode)
    hits, labels = np.concatenate(alarms), np.concatenate(groups)
    found = rate(hits, labels)
    low, high = found["ci95"]  # type: ignore[misc]
    print(f"{EPISODES} validation and {EPISODES} test episodes of Two-Room, one step from each, {SEEDS} seeds")
    print(f"two-sample Kolmogorov-Smirnov at 5 %: rejected in {rejected} of {SEEDS} seeds")
    print(f"false alarms at p <= {LEVEL}: {100 * found['rate']:.2f} % [{100 * low:.2f}, {100 * high:.2f}], ", end="")
    print(f"{hits.sum()} of {len(hits)} ordinary test steps")


if __name__ == "__main__":
    main()

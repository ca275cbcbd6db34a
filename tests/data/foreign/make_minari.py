"""Writes `minari` with Minari's own writer: pictures as JPEG files, which is what it does unasked.

    pip install 'minari[hdf5,create]==0.5.4'
    python tests/data/foreign/make_minari.py

An episode of n actions has n + 1 observations, so its last frame has no action at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from episodes import episodes

HERE = Path(__file__).parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        import gymnasium as gym
        import minari
        from minari.data_collector import EpisodeBuffer

        box = gym.spaces.Box
        space = {"image": box(0, 255, (32, 32, 3), np.uint8), "state": box(-99, 99, (3,), np.float32)}
        buffers = []
        for number, (frames, actions, states) in enumerate(episodes()):
            steps = len(frames) - 1
            buffers.append(
                EpisodeBuffer(
                    id=number,
                    observations={"image": list(frames), "state": list(states)},
                    actions=list(actions[:steps]),
                    rewards=list(np.arange(steps, dtype=float)),
                    terminations=[False] * steps,
                    truncations=[False] * (steps - 1) + [True],
                )
            )
        minari.create_dataset_from_buffers(
            "toy/walk-v0",
            buffers,
            observation_space=gym.spaces.Dict(space),
            action_space=box(-1, 1, (2,), np.float32),
            data_format="hdf5",
        )
        shutil.rmtree(HERE / "minari", ignore_errors=True)
        shutil.copytree(Path(folder) / "toy" / "walk-v0", HERE / "minari")


if __name__ == "__main__":
    main()

"""Writes `lerobot_v21` or `lerobot_v30` with LeRobot's own writer, whichever version is installed.

    pip install lerobot==0.3.3 (v2.1) or lerobot==0.4.4 (v3.0)
    python tests/data/foreign/make_lerobot.py [FOLDER]

The folder is a new one; without it the set goes beside this file. `front` is a video as that version encodes it,
`wrist` pictures inside the table. The last action of an episode is an ordinary number, as a robot's last command is.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from episodes import episodes

# A torchvision that does not fit torch would not let lerobot be imported.
spec = importlib.util.spec_from_file_location("_compat", Path(__file__).parents[3] / "lewm" / "_compat.py")
compat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compat)
compat.install()

from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset  # noqa: E402

HERE, SIDE, FPS = Path(__file__).parent, 64, 10
AXES = ["height", "width", "channels"]
FEATURES = {
    "observation.images.front": {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": AXES},
    "observation.images.wrist": {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": AXES},
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "episode"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
}


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    written = LeRobotDataset.create("toy/walk", fps=FPS, features=FEATURES, root=folder, use_videos=True)
    for frames, actions, states in episodes(SIDE):
        for frame, action, state in zip(frames, actions, states, strict=True):
            pictures = {"observation.images.front": frame, "observation.images.wrist": frame}
            row = {**pictures, "observation.state": state, "action": action}
            if CODEBASE_VERSION.startswith("v2"):
                written.add_frame(row, task="walk")
            else:
                written.add_frame({**row, "task": "walk"})
        written.save_episode()
    if hasattr(written, "finalize"):
        written.finalize()
    shutil.rmtree(folder / "images", ignore_errors=True)  # what was encoded


if __name__ == "__main__":
    beside = HERE / f"lerobot_{CODEBASE_VERSION.replace('.', '')}"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else beside)

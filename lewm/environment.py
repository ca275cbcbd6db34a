"""What made a run: versions, machine, command and data, kept beside it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lewm import __version__
from lewm.paths import written_atomically


def write_environment(folder: Path, data: dict[str, Any]) -> None:
    """Write `env.json`: versions, machine, command, and the description of the data."""
    packages = ("torch", "lightning", "timm", "numpy", "h5py", "webdataset")
    content = {
        "lewm": __version__,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "accelerator": _accelerator()},
        "git": _git_revision(),
        "command": ["lewm", "fit", *sys.argv[2:]],
        "data": data,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with written_atomically(folder / "env.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _git_revision() -> str | None:
    if shutil.which("git") is None:
        return None
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or None

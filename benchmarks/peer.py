"""The peer: stable-worldmodel of PyPI in an environment of its own, made when it is first needed.

python benchmarks/peer.py makes it in `.peer`; PEER names another place. With a CPU build of torch set
PIP_FLAGS as for `make setup`.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "stable-worldmodel==0.1.1",
    "stable-pretraining",
    "transformers",
    "imageio",
    "hdf5plugin",
    "torch",
    "torchvision",
)


def peer_python() -> Path:
    """Interpreter of the peer's environment, with the same torch as ours."""
    folder = Path(os.environ.get("PEER", ROOT / ".peer"))
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"installing {PACKAGES[0]} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        flags = shlex.split(os.environ.get("PIP_FLAGS", ""))
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *flags]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", *PACKAGES], check=True)
        ready.touch()
    return python


@cache
def guard() -> None:
    """In the peer's process: the same guard against a torchvision that does not fit torch, before it is imported."""
    spec = importlib.util.spec_from_file_location("_compat", ROOT / "lewm" / "_compat.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install()


if __name__ == "__main__":
    print(peer_python())

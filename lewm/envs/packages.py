"""Packages that some worlds are built on: imported when such a world is made, and named where they are missing."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

from lewm.errors import UserError

PACKAGES = {"gym_pusht": "gym-pusht", "dm_control": "dm-control"}  # module: what pip calls it, where that differs
UNBUILT = ("dm_control", "ogbench", "labmaze")  # the first two need the third, which has no wheel from FIRST on
FIRST = (3, 13)
PYTHON = sys.version_info[:2]


def needed(module: str, *, world: str) -> ModuleType:
    """The module, imported now; UserError naming the package and the extra where it, or what it needs, is missing."""
    quiet_pygame()
    package = PACKAGES.get(top := module.partition(".")[0], top)
    try:
        import_module(top)
        return import_module(module)
    except ImportError as error:
        what = " ".join(str(error).split())
        install = "pip install 'lewm[envs]'"
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if PYTHON >= FIRST and missing in UNBUILT:
            why = f"which has no build for Python {PYTHON[0]}.{PYTHON[1]} yet: use Python 3.12"
            raise UserError(f"{world} needs the package {package}, {why}") from error
        if missing == top:
            raise UserError(f"{world} needs the package {package}, which is not installed: {install}") from error
        failed = f"cannot be imported ({what}): {_hint(what, install)}"
        raise UserError(f"{world} needs the package {package}, which {failed}") from error


def quiet_pygame() -> None:
    """No banner of pygame on standard output, and no sound; no world opens a window."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _hint(what: str, install: str) -> str:
    """What to do about an import that failed: a shared library is the system's to give, the rest is pip's."""
    if ".so" not in what:
        return install
    library = next(word for word in what.split() if ".so" in word).rstrip(":")
    return f"install the system library {library}"

"""Off-screen drawing for worlds that MuJoCo simulates: which of its backends works here, and one context for them all.

MuJoCo takes its backend from MUJOCO_GL when it is first imported, and never another. Where that is not set the first
backend that draws a picture in a process of its own is chosen; processes started later inherit the choice.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

import numpy as np
from jaxtyping import UInt8

from lewm.envs.packages import needed
from lewm.errors import UserError

VARIABLE = "MUJOCO_GL"
BACKENDS = ("egl", "osmesa")  # in this order: a GPU's EGL is by far the fastest, Mesa's as fast as OSMesa
NONE = "disable"  # MuJoCo's own word: it simulates and cannot draw
REMEDY = "install libosmesa6 and set MUJOCO_GL=osmesa, or use a GPU's EGL"
PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); r = mujoco.Renderer(m, 8, 8); "
    "r.update_scene(mujoco.MjData(m)); r.render(); r.close()"
)
PATIENCE = 60.0  # seconds for one probe


def load(world: str) -> Any:
    """MuJoCo, imported with a backend that works here, if there is one; UserError where it cannot be imported."""
    choose()
    try:
        return needed("mujoco", world=world)
    except UserError:
        raise
    except Exception as error:  # a backend that was asked for is loaded at import, and fails in ways of its own
        raise UserError(_cannot_draw(error)) from error


def choose() -> None:
    """Set MUJOCO_GL, unless it is set, or it is too late for that."""
    if VARIABLE in os.environ or "mujoco" in sys.modules or sys.platform != "linux" or find_spec("mujoco") is None:
        return
    os.environ[VARIABLE] = next((backend for backend in BACKENDS if works(backend)), NONE)


@contextmanager
def chosen_at_import() -> Iterator[None]:
    """Within, whoever imports MuJoCo first does it after `choose`; where nobody does nothing is set or tried."""
    finder = _AtImport()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.leave()


class _AtImport(MetaPathFinder):
    """Finds nothing; it is asked when a module is about to be imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname == "mujoco":
            self.leave()  # `choose` looks for the package, too
            choose()

    def leave(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


def works(backend: str) -> bool:
    """Whether a new process can draw with a backend; a driver that crashes takes that process alone with it."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, env=inherited | {VARIABLE: backend}, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Scene:
    """A compiled model, shared by the worlds of one kind in a process, with one context that draws for all of them.

    A world's own is its `mujoco.MjData`: everything that a step changes or depends on. The context is made by the
    first picture, and freed when no world is left open, or at exit.
    """

    def __init__(self, mujoco: Any, model: Any, *, camera: int | str, side: int) -> None:
        self.mujoco, self.model, self.camera, self.side = mujoco, model, camera, side
        model.vis.global_.offwidth = model.vis.global_.offheight = side
        self.users: WeakSet[Any] = WeakSet()
        self._renderer: Any = None
        _free_at_exit(self)

    def join(self, world: Any) -> Any:
        """New data for a world, which is open from now on."""
        self.users.add(world)
        return self.mujoco.MjData(self.model)

    def leave(self, world: Any) -> None:
        """A world is closed."""
        self.users.discard(world)
        if not self.users:
            self.free()

    def draw(self, data: Any) -> UInt8[np.ndarray, "side side 3"]:
        """The picture; UserError where nothing can draw."""
        if self._renderer is None:
            self._renderer = self._new_renderer()
        self._renderer.update_scene(data, self.camera)
        return self._renderer.render()

    def free(self) -> None:
        """Give the context back; the next picture makes a new one."""
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()

    def _new_renderer(self) -> Any:
        if os.environ.get(VARIABLE) == NONE:
            raise UserError(f"no off-screen renderer for MuJoCo: {REMEDY}")
        try:
            renderer = self.mujoco.Renderer(self.model, self.side, self.side)
        except Exception as error:
            raise UserError(_cannot_draw(error)) from error
        _free_at_exit(self)
        return renderer


_scenes: WeakSet[Scene] = WeakSet()


def _free_at_exit(scene: Scene) -> None:
    """Registered last, and so done first: MuJoCo and dm_control take the display down, each since it was first used."""
    _scenes.add(scene)
    atexit.unregister(_free_all)
    atexit.register(_free_all)


def _free_all() -> None:
    for scene in _scenes:
        scene.free()


def _cannot_draw(error: Exception) -> str:
    what = " ".join(str(error).split()) or type(error).__name__
    return f"MuJoCo cannot draw with {VARIABLE}={os.environ.get(VARIABLE, '')} ({what}): unset it, or {REMEDY}"

"""The choice of what MuJoCo draws with, and the context that worlds share."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from lewm.envs import mujoco_gl
from lewm.envs.mujoco_gl import BACKENDS, NONE, VARIABLE, choose, chosen_at_import, load, works
from lewm.envs.reacher import Reacher, scene
from lewm.errors import UserError

needs_dm_control = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="needs dm-control, which has no build for Python 3.13 yet"
)


@pytest.fixture
def unset(monkeypatch):
    """As before the first import of MuJoCo, with nothing chosen."""
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


@pytest.mark.parametrize(
    ("working", "chosen"), [(BACKENDS, "egl"), (("osmesa",), "osmesa"), ((), NONE)], ids=["both", "osmesa", "none"]
)
def test_the_first_backend_that_works_is_chosen(unset, working, chosen):
    unset.setattr(mujoco_gl, "works", lambda backend: backend in working)
    choose()
    assert os.environ[VARIABLE] == chosen


def test_what_is_set_stays_and_after_the_import_it_is_too_late(unset):
    unset.setattr(mujoco_gl, "works", lambda backend: pytest.fail("nothing needs to be tried"))
    unset.setenv(VARIABLE, "osmesa")
    choose()
    assert os.environ[VARIABLE] == "osmesa"
    unset.delenv(VARIABLE)
    unset.setitem(sys.modules, "mujoco", sys)
    choose()
    assert VARIABLE not in os.environ


def test_whoever_imports_mujoco_first_does_it_after_the_choice(unset, tmp_path):
    unset.setattr(mujoco_gl, "works", lambda backend: backend == "osmesa")
    (tmp_path / "mujoco.py").write_text("import os\nseen = os.environ['MUJOCO_GL']\n")
    unset.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    with chosen_at_import():
        import colorsys  # noqa: F401
    assert VARIABLE not in os.environ and sys.meta_path == before, "nobody imported it"
    with chosen_at_import():
        assert import_module("mujoco").seen == "osmesa"
    assert sys.meta_path == before
    del sys.modules["mujoco"]


GYMNASIUMS = """
import os, sys
from lewm.envs import make_world
from lewm.errors import UserError
make_world("Pendulum-v1", image_size=8)
print("MUJOCO_GL" in os.environ, "mujoco" in sys.modules)
try:
    world = make_world("InvertedPendulum-v5", image_size=8)
    print("drawn", world.reset(seed=0)[0].std() > 3)
    world.close()
except UserError as error:
    print("said", str(error).count(os.linesep) == 0)
print(os.environ["MUJOCO_GL"])
"""


def test_gymnasiums_mujoco_is_drawn_without_a_display_or_says_why_not(tmp_path):
    inherited = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "DISPLAY")}
    command = [sys.executable, "-c", GYMNASIUMS]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    other, drawn, backend = done.stdout.splitlines()
    assert other == "False False", "another environment sets nothing"
    assert drawn == ("said True" if backend == NONE else "drawn True")


def test_a_backend_that_cannot_be_loaded_does_not_work():
    assert not works("no such thing")


@needs_dm_control
def test_without_a_renderer_a_world_moves_and_drawing_it_says_what_to_install(monkeypatch):
    world = Reacher()
    before = world.state
    scene().free()
    monkeypatch.setenv(VARIABLE, NONE)
    world.advance([1.0, -1.0])
    assert (world.state != before).all()
    with pytest.raises(UserError, match="no off-screen renderer for MuJoCo: install libosmesa6 and set MUJOCO_GL=osm"):
        world.render()


@needs_dm_control
def test_a_context_that_cannot_be_made_is_one_line_that_names_the_backend(monkeypatch):
    world = Reacher()
    scene().free()
    monkeypatch.setenv(VARIABLE, "egl")

    def fail(*_):
        raise RuntimeError("Cannot create\nan EGL context.")

    monkeypatch.setattr(load("reacher"), "Renderer", fail)
    with pytest.raises(UserError, match=r"with MUJOCO_GL=egl \(Cannot create an EGL context.\): unset it, or install"):
        world.render()


@needs_dm_control
def test_a_backend_that_fails_at_import_is_one_line_too():
    code = "from lewm.envs import make_world; make_world('reacher', image_size=64)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {VARIABLE: "nonsense"}, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError: MuJoCo cannot draw with MUJOCO_GL=nonsense" in last and last.endswith("use a GPU's EGL")


@needs_dm_control
def test_worlds_share_one_context_which_goes_with_the_last_of_them(drawing):
    scene().users.clear()
    first, second = Reacher(image_size=8), Reacher(image_size=16)
    assert scene()._renderer is None, "nothing is held before the first picture"
    first.reset(seed=0)
    context = scene()._renderer
    second.reset(seed=0)
    first.close()
    assert scene()._renderer is context is not None
    second.close()
    assert scene()._renderer is None
    assert second.render().shape == (16, 16, 3), "a closed world that is drawn again has a new one"
    second.close()


@needs_dm_control
def test_a_process_that_has_drawn_ends_in_silence(drawing):
    code = (
        "from lewm.envs import make_world; w = make_world('reacher', image_size=8); print(w.reset(seed=0)[0].mean()); "
        "make_world('cube', image_size=8)"  # whose packages take the display down at exit, too
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and float(done.stdout) > 10


@pytest.fixture
def drawing():
    """Leaves a test out on a machine where nothing can draw."""
    load("reacher")
    if os.environ.get(VARIABLE) == NONE:
        pytest.skip("no off-screen renderer for MuJoCo on this machine")
    scene().free()

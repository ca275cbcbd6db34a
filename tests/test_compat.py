"""The torchvision guard."""

import subprocess
import sys

import pytest

ORDERS = ["lightning", "torchmetrics", "timm", "torchvision.ops", "lewm.module", "lewm.model.encoder", "lewm.fit"]


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("first", ORDERS)
def test_whatever_is_imported_first_after_lewm_works(first):
    done = run(f"import lewm, {first}")
    assert done.returncode == 0, done.stderr[-500:]


def test_importing_lewm_is_light():
    done = run("import sys, lewm; assert not {'torch', 'lightning', 'timm', 'numpy'} & set(sys.modules), 'heavy'")
    assert done.returncode == 0, done.stderr


def test_the_command_line_shows_its_help_without_torch():
    code = "import sys; from lewm.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    assert run(code).returncode == 0


SIMULATED = """
import sys, types, importlib.util, importlib.machinery
from lewm import _compat
import torch
real = importlib.util.find_spec
spec = importlib.machinery.ModuleSpec("torchvision", None)
spec.submodule_search_locations = ["{folder}"]
importlib.util.find_spec = lambda name, *a: spec if name == "torchvision" else real(name, *a)
torch.ops.load_library = {load}
print(_compat.ensure_torchvision_importable())
print(_compat._library is None)
"""


def test_a_matching_torchvision_keeps_its_own_operators(tmp_path):
    (tmp_path / "_C.so").touch()
    done = run(SIMULATED.format(folder=tmp_path, load="lambda path: None"))
    assert done.stdout.split("\n")[:2] == ["torchvision matches torch", "True"], done.stderr


def test_one_that_does_not_load_gets_stand_ins(tmp_path):
    (tmp_path / "_C.so").touch()
    load = "lambda path: (_ for _ in ()).throw(OSError('libcudart'))"
    done = run(SIMULATED.format(folder=tmp_path, load=load))
    assert done.stdout.split("\n")[1] == "False", done.stderr
    assert "replaced" in done.stdout

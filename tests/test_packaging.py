"""The wheel, installed away from the checkout, is whole."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as an installer lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("lewm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_module_and_config_is_in_the_wheel_under_the_package_alone(installed):
    assert {p.name.split("-")[0] for p in installed.iterdir()} == {"lewm"}
    for folder in ("datasets", "probes", "configs"):
        for path in (ROOT / folder).rglob("*.*"):
            if "__pycache__" not in path.parts:
                assert (installed / "lewm" / folder / path.relative_to(ROOT / folder)).is_file(), path


def test_the_installed_program_runs_away_from_the_checkout(installed, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}
    where = run(sys.executable, "-c", "import lewm; print(lewm.__file__)", cwd=tmp_path, env=environment)
    assert Path(where.strip()).is_relative_to(installed)
    lewm = [sys.executable, "-m", "lewm"]
    collect = ["collect", "two_room", "--out", "d", "--episodes", "12", "--image-size", "16"]
    run(*lewm, *collect, cwd=tmp_path, env=environment)
    fit = ["fit", "--config", "demo", "--data.path", "d", "--data.global_batch", "4", "--trainer.max_steps", "1"]
    run(*lewm, *fit, cwd=tmp_path, env=environment)
    assert list(tmp_path.glob("runs/demo/*/checkpoints/step=1.ckpt"))

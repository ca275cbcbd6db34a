"""The wheel that is built from the source archive, installed away from the checkout, is whole."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import lewm

ROOT = Path(__file__).parents[1]


def run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as an installer lays it out; what the source archive lacks, it lacks too."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
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


def test_the_version_in_the_source_is_the_wheels_and_the_one_to_cite(installed):
    assert (installed / f"lewm-{lewm.__version__}.dist-info" / "METADATA").is_file()
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == lewm.__version__


def test_the_source_archive_has_what_a_build_needs_and_no_half_of_the_tests(installed):
    (source,) = installed.parent.glob("lewm-*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"} <= names
    assert "datasets/schema.py" in names
    assert not [name for name in names if name.startswith(("tests", "lewm/datasets", "lewm/probes"))]

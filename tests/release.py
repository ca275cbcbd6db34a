"""`make release` ends here: the wheel, then the source archive, installed into a fresh environment and used.

Everything happens in a temporary folder, so that nothing of the checkout can stand in for what an archive lacks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
USED = """
lewm --version
lewm --help
lewm doctor
lewm collect two_room --out data --episodes 80 --image-size 16
lewm fit --config demo --data.path data --data.global_batch 8 --trainer.max_steps 2 --trainer.limit_val_batches 1
lewm probe runs/demo --data data --layers embedding --max-frames 200
lewm report runs/demo
"""


def run(*command: str | Path, where: Path) -> str:
    """Standard output of a command; the release ends where it fails."""
    free = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=where, env=free, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def use(archive: Path, bin: Path, where: Path, *flags: str) -> None:
    """Install an archive and run what users run."""
    pip = (bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(
        *pip, *shlex.split(os.environ.get("PIP_FLAGS", "")), "-c", ROOT / "constraints.txt", *flags, archive, where=ROOT
    )
    where.mkdir()
    found = Path(run(bin / "python", "-c", "import lewm; print(lewm.__file__)", where=where).strip())
    assert found.is_relative_to(bin.parent), f"{found} was used, not what is installed"
    version = archive.name.removesuffix(".tar.gz").split("-")[1]
    assert run(bin / "lewm", "--version", where=where) == f"lewm {version}\n"
    for line in USED.strip().splitlines():
        print(f"{archive.name}: {line}", flush=True)
        program, *words = line.split()
        run(bin / program, *words, where=where)
    for name in ("report/probe/result.json", "report/report.html"):
        assert list(where.glob(f"runs/demo/*/{name}")), f"no {name}"


def main(dist: Path) -> None:
    """Use every archive of a release."""
    (wheel,), (source,) = dist.glob("lewm-*.whl"), dist.glob("lewm-*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        run(sys.executable, "-m", "venv", "env", where=home)
        use(wheel, home / "env" / "bin", home / "wheel")
        use(source, home / "env" / "bin", home / "source", "--no-deps", "--force-reinstall")
    print(f"both can be used: {wheel} {source}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

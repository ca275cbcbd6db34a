"""Every page of docs/tutorials does what it says: its blocks run, in their order, in an empty folder, or beside a set.

The set of the page on LeRobot is written by LeRobot itself, in an environment of its own (`.lerobot`), made from PyPI
when it is first needed. A block marked `sh` or `python` is run as it stands; one with a title (```python
title="robot.py") is written to a file of that name.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r'^```(sh|python|yaml)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PROGRAMS = {"sh": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c")}
SECONDS = 1200
# What its writer of data sets imports; all that lerobot asks for would be gigabytes.
LEROBOT = ("lerobot==0.4.4",)
ITS_NEEDS = ("datasets>=4,<5", "huggingface-hub<0.36", "av>=15,<16", "accelerate<2", "draccus==0.10.0", "deepdiff<9")
ITS_NEEDS += ("jsonlines", "termcolor", "packaging<26", "imageio<3", "einops")


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(page)]


def follow(page: str, folder: Path, environment: dict[str, str]) -> None:
    """Do what a page says; an AssertionError shows the block that failed, and what it printed."""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
            continue
        assert block.language in PROGRAMS, f"a block of {block.language} has no title"
        command = (*PROGRAMS[block.language], block.text)
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            text=True,
            timeout=SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{block.text}\nended with {done.returncode}:\n{done.stdout[-3000:]}"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """As after `pip install .`: `lewm` and `python` are those of this checkout."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, words in {"lewm": "-m lewm", "python": "", "torchrun": "-m torch.distributed.run"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    added = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return os.environ | added


def lerobot_python() -> Path:
    """Interpreter of an environment with LeRobot and the torch of ours."""
    folder = ROOT / ".lerobot"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += shlex.split(os.environ.get("PIP_FLAGS", ""))
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", "torch", "torchvision"], check=True)
        subprocess.run([*pip, *ITS_NEEDS], check=True)
        subprocess.run([*pip, "--no-deps", *LEROBOT], check=True)
        ready.touch()
    return python


def write_lerobot(folder: Path) -> None:
    """A set of version 3 by LeRobot's own writer."""
    script = ROOT / "tests" / "data" / "foreign" / "make_lerobot.py"
    done = subprocess.run([lerobot_python(), script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, environment, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    if page.stem == "lerobot":
        write_lerobot(folder / "my_robot")
    follow(page.read_text(encoding="utf-8"), folder, environment)


def test_there_are_tutorials_and_no_block_of_them_is_overlooked():
    assert len(PAGES) >= 3
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^ *```(?:sh|python|yaml)", text, re.MULTILINE)) == len(blocks(text)) > 0, page.name


GOOD = """
```python title="one.py"
print(1)
```
text
```sh
python one.py > two
```
```python
assert open("two").read() == "1\\n"
```
"""


def test_blocks_are_written_or_run_in_their_order(environment, tmp_path):
    follow(GOOD, tmp_path, environment)


@pytest.mark.parametrize(
    "bad",
    [
        "```sh\nfalse\ntrue\n```\n",
        "```sh\nfalse | cat\n```\n",
        "```python\nassert False\n```\n",
        "```sh\nlewm fti\n```\n",
    ],
)
def test_a_block_that_fails_fails_the_page(bad, environment, tmp_path):
    with pytest.raises(AssertionError, match="ended with"):
        follow(GOOD + bad, tmp_path, environment)

"""Damage done to a data set on purpose, and the command that meets it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from conftest import TINY_FLAGS

from lewm.cli import main
from lewm.datasets.pixels import HEADER
from lewm.datasets.schema import open_source


def rot(file: Path, at: int, flip: int = 4) -> None:
    """Flip bits of one byte as a bad disk does it: no time of change tells."""
    content, before = bytearray(file.read_bytes()), file.stat()
    content[at] ^= flip
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def member(folder: Path, episode: int, ext: str):
    tar, members = open_source(folder).located(episode)
    return tar, members[ext]


def rot_frame(folder: Path, episode: int, frame: int) -> None:
    """Damage one frame of a container."""
    tar, m = member(folder, episode, "frames.lwf")
    packed = tar.read_bytes()[m.offset : m.offset + m.size]
    (end,) = struct.unpack_from("<Q", packed, HEADER.size + 8 * (frame + 1))
    rot(tar, m.offset + end - 9)


def refused(capsys, argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lewm: error: ")]
    return line


def fit(data: Path, out: Path, *flags: str) -> list[str]:
    root = f"--trainer.default_root_dir={out}"
    return ["fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", "--trainer.logger=false", root, *flags]

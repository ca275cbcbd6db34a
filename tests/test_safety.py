"""Nothing that is read may run code or take the memory: hostile checkpoints with real payloads."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
import torch

from lewm import checkpoint
from lewm.cli import main
from lewm.errors import UserError

ABOUT = {"format": 1, "interface": {}, "config": {}}


class Payload:
    """Unpickling it leaves a file named PWNED in the working folder."""

    def __reduce__(self):
        return os.system, ("touch PWNED",)


class Marked(torch.nn.Module):
    """A whole module, which only a pickle brings back."""


def as_zip(path: Path) -> None:
    torch.save({"lewm": {"format": 1}, "state_dict": Payload()}, path)


def as_legacy(path: Path) -> None:
    torch.save({"lewm": {"format": 1}, "state_dict": Payload()}, path, _use_new_zipfile_serialization=False)


def as_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def as_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("pickle", "storages", "tensors"):  # torch's oldest format
            content = pickle.dumps(Payload())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def as_module(path: Path) -> None:
    torch.save({"lewm": {"format": 1}, "state_dict": Marked()}, path)


def as_script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def as_escaping_names(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../PWNED", "/PWNED", "archive/data.pkl"):
            archive.writestr(name, pickle.dumps(Payload()))


GIANT = b"\x8a\x06" + (2**40).to_bytes(6, "little")  # as a pickle writes it
SWOLLEN = 4 * 50_000_000  # bytes


def rewritten(path: Path, number: bytes, compression: int, data: int = 256) -> None:
    """A checkpoint of one tensor of zeros: it says it holds so many, its data has `data` bytes."""
    torch.save({"lewm": ABOUT, "state_dict": {"x": torch.zeros(64)}}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                assert content.count(b"K@") == 2  # the storage's size and the tensor's
                content = content.replace(b"K@", number)
            with archive.open(name, "w") as part:
                part.write(content if not name.endswith("data/0") else b"")
                for _ in range(data // 2**16 if name.endswith("data/0") else 0):
                    part.write(bytes(2**16))
                if name.endswith("data/0"):
                    part.write(bytes(data % 2**16))


def as_giant_tensor(path: Path) -> None:
    """A file of a few kilobytes that says it holds terabytes."""
    rewritten(path, GIANT, zipfile.ZIP_STORED)


def as_bomb(path: Path) -> None:
    """A checkpoint that torch would read, of a megabyte that inflates to two hundred."""
    rewritten(path, b"J" + (SWOLLEN // 4).to_bytes(4, "little"), zipfile.ZIP_DEFLATED, SWOLLEN)
    assert path.stat().st_size < 2**21


def as_shared_bytes(path: Path) -> None:
    """A thousand parts, all of which are the same two hundred kilobytes of the file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(200_000))
        first = archive.getinfo("archive/data.pkl")
        for i in range(1000):
            again = copy(first)
            again.filename = f"archive/data/{i}"
            archive.filelist.append(again)


def as_one_number_shown_as_many(path: Path) -> None:
    torch.save({"lewm": ABOUT, "state_dict": {"x": torch.zeros(1).expand(2**40)}}, path)


def as_no_tensors(path: Path) -> None:
    torch.save({"lewm": ABOUT, "state_dict": {"x": torch.zeros(2**40, device="meta"), "y": "z"}}, path)


SWELLING = [as_giant_tensor, as_bomb, as_shared_bytes, as_one_number_shown_as_many, as_no_tensors]
HOSTILE = [as_zip, as_legacy, as_pickle, as_tar, as_module, as_script, as_escaping_names, *SWELLING]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_checkpoint_is_refused_by_every_way_in_and_runs_nothing(
    make: Callable[[Path], None], tmp_path, monkeypatch, capsys
):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    make(Path("evil.ckpt"))
    with pytest.raises(UserError, match=r"evil\.ckpt"):
        checkpoint.load("evil.ckpt")
    for words in (["fit", "--replay", "evil.ckpt"], ["probe", "evil.ckpt", "--data", "x.h5"]):
        assert main(words) == 2
        assert "evil.ckpt" in capsys.readouterr().err
    assert not list(tmp_path.rglob("PWNED"))


MEASURED = """
import sys
from pathlib import Path
from lewm.errors import UserError
from lewm.probes.probe_run import probe  # so that nothing is imported later
from lewm import checkpoint

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

before = peak()
for path in sys.argv[1:]:
    for read in (checkpoint.load, lambda path: checkpoint.every([path, path])):
        try:
            read(path)
        except UserError:
            continue
        sys.exit(f"{path} was accepted")
    print(path, peak() - before)
"""


def test_a_small_checkpoint_that_would_fill_the_memory_is_refused_without_room_for_it(tmp_path):
    for make in SWELLING:
        make(tmp_path / make.__name__)
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, *(str(tmp_path / make.__name__) for make in SWELLING)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = {Path(name).name: int(size) for name, size in map(str.split, done.stdout.splitlines())}
    assert len(grown) == len(SWELLING)
    assert max(grown.values()) < 32 * 1024, grown  # KiB


def test_torch_itself_would_read_the_bomb(tmp_path):
    as_bomb(tmp_path / "bomb.ckpt")
    assert torch.load(tmp_path / "bomb.ckpt", weights_only=True)["state_dict"]["x"].nbytes == SWOLLEN


def test_the_payload_is_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_zip(Path("evil.ckpt"))
    torch.load("evil.ckpt", weights_only=False)
    assert Path("PWNED").exists()


@pytest.mark.parametrize("about", [None, [], {}, {"format": "1"}, {"format": 1}, {"format": 1, "interface": {"a": 1}}])
def test_a_checkpoint_whose_description_is_damaged_is_a_users_error(tmp_path, about):
    torch.save({"lewm": about, "state_dict": {}}, tmp_path / "m.ckpt")
    with pytest.raises(UserError, match=r"m\.ckpt"):
        checkpoint.load(tmp_path / "m.ckpt")

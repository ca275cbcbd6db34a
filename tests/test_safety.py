"""Nothing that is read may run code: hostile checkpoints with real payloads, and what the source itself may call."""

from __future__ import annotations

import ast
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lewm import checkpoint
from lewm.cli import main
from lewm.errors import UserError

ROOT = Path(__file__).parents[1]


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


def as_giant_tensor(path: Path) -> None:
    """A file of a few kilobytes that says it holds a terabyte."""
    torch.save({"lewm": {"format": 1}, "state_dict": {"x": torch.zeros(64)}}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    giant = b"\x8a\x06" + (2**40).to_bytes(6, "little")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                assert content.count(b"K@") == 2  # the storage's size and the tensor's
                content = content.replace(b"K@", giant)
            archive.writestr(name, content)


def as_bomb(path: Path) -> None:
    """Fifty kilobytes that inflate to fifty megabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)


HOSTILE = [as_zip, as_legacy, as_pickle, as_tar, as_module, as_script, as_escaping_names, as_giant_tensor, as_bomb]


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


def calls() -> list[tuple[str, str, ast.Call]]:
    """(file, dotted name, call) of every call in the package."""
    found = []
    for path in sorted(p for d in ("lewm", "datasets", "probes", "benchmarks") for p in (ROOT / d).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((path.name, ast.unparse(node.func), node))
    return found


def keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def test_the_source_never_loads_a_pickle_and_never_evaluates_text():
    everything = calls()
    assert len(everything) > 2000
    for file, name, call in everything:
        if name == "torch.load":
            assert keyword(call, "weights_only") is True, file
        if name in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") in (False, None), file  # numpy's default is False
        assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "os.system", "yaml.load", "yaml.unsafe_load")
        assert not name.endswith((".extract", ".extractall")), file  # of an archive
        assert keyword(call, "shell") is not True, file

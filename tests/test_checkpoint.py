"""Checkpoints carry everything and run nothing."""

import os
import pickle
import random
import re
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lewm import checkpoint
from lewm.errors import UserError


class Payload:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def test_a_loaded_model_is_the_saved_one_frozen_with_its_whole_interface(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path / "m.ckpt")
    loaded = checkpoint.load(tmp_path / "m.ckpt")
    pixels = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    actions = torch.randn(2, 3, 2, 2)
    with torch.no_grad():  # without it attention takes another kernel
        torch.testing.assert_close(loaded.surprise(pixels, actions), tiny_model.surprise(pixels, actions))
    state = tiny_model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert loaded.interface == tiny_model.interface
    assert loaded.config == tiny_model.config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_it_loads_with_weights_only(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path / "m.ckpt")
    assert torch.load(tmp_path / "m.ckpt", weights_only=True)["lewm"]["interface"]["frameskip"] == 2


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"lewm": {}, "state_dict": Payload()}, "evil.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match="not a readable checkpoint"):
            checkpoint.load(name)
    assert not Path("PWNED").exists()


def test_a_failed_write_leaves_the_earlier_checkpoint_intact(tiny_model, tmp_path, monkeypatch):
    path = tmp_path / "m.ckpt"
    checkpoint.save(tiny_model, path)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=f"cannot write {path}: .*choose another place"):
        checkpoint.save(tiny_model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def limit_files(size: int) -> None:
    """Let this process write no file longer than `size` bytes: a disk that fills up in the middle of a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def lose_permission(folder: Path) -> None:
    """Take the right to write from this process, also where it is the superuser's."""
    folder.chmod(0o555)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def in_child(work: Callable[[], None]) -> str:
    """What a UserError raised by `work` in a process of its own says."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            work()
        except UserError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as said:
        return said.read()


@pytest.mark.parametrize("fault", ["disk full", "permission lost"])
def test_where_nothing_can_be_written_earlier_checkpoints_stay_and_the_reason_is_said(tiny_model, fault):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        checkpoint.save(tiny_model, folder / "step=1.ckpt")
        before = (folder / "step=1.ckpt").read_bytes()

        def save() -> None:
            limit_files(len(before) // 2) if fault == "disk full" else lose_permission(folder)
            checkpoint.save(tiny_model, folder / "step=2.ckpt")

        said = in_child(save)
        folder.chmod(0o755)
        assert f"cannot write {folder / 'step=2.ckpt'}" in said
        if fault == "disk full":
            assert re.search(r"File too large: it needs 0\.\d MiB, [\d.]+ MiB are free", said)
        else:
            assert "Permission denied" in said
        assert [path.name for path in folder.iterdir()] == ["step=1.ckpt"]
        assert (folder / "step=1.ckpt").read_bytes() == before
        checkpoint.load(folder / "step=1.ckpt")


def test_no_flipped_bit_gives_other_weights(tiny_model, tmp_path):
    path = tmp_path / "m.ckpt"
    checkpoint.save(tiny_model, path)
    whole, rng = path.read_bytes(), random.Random(0)
    expected, found = checkpoint.read(path), 0
    for _ in range(200):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            state = checkpoint.read(path)
        except UserError:
            found += 1
        else:  # in a byte between the parts, which nobody reads
            assert state["lewm"] == expected["lewm"]
            assert all(torch.equal(x, expected["state_dict"][n]) for n, x in state["state_dict"].items())
    assert found > 100


def test_the_newest_valid_checkpoint_of_the_newest_run_is_found(tiny_model, tmp_path):
    for run, steps in (("20260101-000000", (900,)), ("20260102-000000", (80, 100, 90))):
        folder = tmp_path / run / "checkpoints"
        folder.mkdir(parents=True)
        for step in steps:
            checkpoint.save(tiny_model, folder / f"step={step}.ckpt")
    newest = tmp_path / "20260102-000000" / "checkpoints" / "step=100.ckpt"
    assert checkpoint.resolve(tmp_path) == newest
    assert checkpoint.run_folder(tmp_path) == newest.parent.parent
    newest.write_bytes(newest.read_bytes()[:1000])
    found, skipped = checkpoint.newest_valid(tmp_path)
    assert (found.name, skipped) == ("step=90.ckpt", [newest])


def a_run(folder: Path, model, *names: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in names:
        checkpoint.save(model, folder / "checkpoints" / name)
    return folder


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:1000])
    return path


def test_of_a_run_whose_newest_checkpoint_is_damaged_the_one_before_is_loaded_and_that_is_said(
    tiny_model, tmp_path, capsys
):
    run = a_run(tmp_path / "run", tiny_model, "step=4.ckpt", "step=8.ckpt", "best.ckpt")
    damaged = cut(run / "checkpoints" / "step=8.ckpt")
    for path in (run, tmp_path):
        assert checkpoint.resolve(path).name == "step=4.ckpt"
    checkpoint.load(run)
    assert checkpoint.run_folder(run) == run
    assert capsys.readouterr().err == f"lewm: skipped a checkpoint that cannot be read: {damaged}\n"  # once


def test_where_every_checkpoint_of_a_run_is_damaged_the_error_names_one_that_is_not(tiny_model, tmp_path):
    run = a_run(tmp_path / "run", tiny_model, "step=4.ckpt", "step=8.ckpt", "best.ckpt")
    for name in ("step=4.ckpt", "step=8.ckpt"):
        cut(run / "checkpoints" / name)
    best = run / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match=rf"step=8.ckpt, step=4.ckpt are damaged; by its name {best} can"):
        checkpoint.load(run)
    checkpoint.load(best)
    cut(best)
    with pytest.raises(UserError, match="are damaged; restore one"):
        checkpoint.load(run)


def test_an_untrained_control_has_the_same_shape_other_weights_and_leaves_randomness_alone(tiny_model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    control = checkpoint.untrained(tiny_model, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert control.state_dict().keys() == tiny_model.state_dict().keys()
    assert not torch.equal(control.pred_proj.net[0].weight, tiny_model.pred_proj.net[0].weight)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_bytes(b"x"), lambda p: torch.save({"a": 1}, p)])
def test_what_is_no_checkpoint_of_ours_is_a_users_error(tmp_path, make):
    make(tmp_path / "m.ckpt")
    with pytest.raises(UserError, match="checkpoint"):
        checkpoint.load(tmp_path / "m.ckpt")

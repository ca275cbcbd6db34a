"""Checkpoints carry everything and run nothing."""

import os
import pickle
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

    def full(content, target):
        Path(target).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="disk may be full"):
        checkpoint.save(tiny_model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


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

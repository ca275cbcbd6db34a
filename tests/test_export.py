"""A model leaves as a folder that others load, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damaged import refused
from published import FLAGS, golden, old_spelling, same
from safetensors.torch import load_file, save_file

import lewm
from lewm import checkpoint
from lewm.cli import main
from lewm.errors import UserError
from lewm.export import export
from lewm.importing import import_weights
from lewm.weights import sha256


@pytest.fixture
def exported(tiny_run, tmp_path) -> Path:
    return export(tiny_run, tmp_path / "model")


def test_the_folder_loads_as_the_run_does(tiny_run, exported):
    a, b = lewm.load(tiny_run), lewm.load(exported)
    assert same(a.state_dict(), b.state_dict())
    assert (a.interface, a.config) == (b.interface, b.config)
    assert checkpoint.steps_trained(checkpoint.resolve(exported)) == 5
    assert not b.training and not any(p.requires_grad for p in b.parameters())
    assert sorted(p.name for p in exported.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    mask = os.umask(0)
    os.umask(mask)
    assert all(p.stat().st_mode & 0o777 == 0o666 & ~mask for p in exported.iterdir())  # others may read it too


def test_an_exported_folder_is_judged_like_a_checkpoint(exported, walks, tmp_path, capsys):
    command = [
        "surprise",
        str(exported),
        "--data",
        str(walks),
        "--kinds",
        "teleport",
        "--max_clips",
        "4",
        "--depth",
        "1",
    ]
    assert "say where the results go with --out" in refused(capsys, command)
    assert main([*command, "--split", "all", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())["checkpoint"]
    assert found["path"] == str(exported / "model.safetensors")
    assert found["sha256"] == sha256(exported / "model.safetensors")


def test_steps_and_origin_travel_with_the_weights(tiny_model, tmp_path):
    state = {f"model.{name}": x for name, x in tiny_model.state_dict().items()}
    about = checkpoint.describe(tiny_model) | {"imported": {"file": "w.pt", "sha256": "0" * 64}}
    checkpoint.write({"lewm": about, "state_dict": state, "global_step": 812}, tmp_path / "best.ckpt")
    out = export(export(tmp_path / "best.ckpt", tmp_path / "a"), tmp_path / "b")
    assert checkpoint.steps_trained(checkpoint.resolve(out)) == 812
    assert checkpoint.read(checkpoint.resolve(out))["lewm"]["imported"]["file"] == "w.pt"
    assert "| imported from | w.pt, sha256 000" in (out / "README.md").read_text()


@pytest.mark.parametrize("name", ["lewm_swm_0.1.1", "lewm_swm_0.1.1_wide"])
@pytest.mark.parametrize("spelling", [5, 4])
def test_weights_for_stable_worldmodel_come_back_bit_for_bit_and_need_no_flags(name, spelling, tmp_path):
    weights, _ = golden(name)
    torch.save(weights, tmp_path / "w.pt")
    import_weights(tmp_path / "w.pt", tmp_path / "run", **FLAGS)
    command = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--format", "stable-worldmodel"]
    assert main([*command, "--spelling", str(spelling)]) == 0
    theirs = torch.load(tmp_path / "out" / "weights.pt", weights_only=True)
    assert same(theirs, weights if spelling == 5 else old_spelling(weights))
    a = lewm.load(import_weights(tmp_path / "out", tmp_path / "again"))
    b = lewm.load(tmp_path / "run")
    assert same(a.state_dict(), b.state_dict())
    assert (a.interface, a.config) == (b.interface, b.config)


def test_an_interface_that_was_changed_on_the_way_is_refused(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path / "m.ckpt")
    out = export(tmp_path / "m.ckpt", tmp_path / "out", form="stable-worldmodel")
    text = (out / "lewm.json").read_text()
    (out / "lewm.json").write_text(text.replace('"resize": false', '"resize": true'))
    with pytest.raises(UserError, match=r"lewm.json differs from its checksum"):
        import_weights(out, tmp_path / "run")


def test_a_models_data_are_forgotten_where_its_weights_came_back_changed(tiny_model, tmp_path):
    tiny_model.interface = replace(tiny_model.interface, fingerprint="f" * 16)
    checkpoint.save(tiny_model, tmp_path / "m.ckpt")
    out = export(tmp_path / "m.ckpt", tmp_path / "out", form="stable-worldmodel")
    assert lewm.load(import_weights(out, tmp_path / "same")).interface.fingerprint == "f" * 16
    state = torch.load(out / "weights.pt", weights_only=True)
    state["predictor.pos_embedding"] += 1
    torch.save(state, out / "weights.pt")
    assert lewm.load(import_weights(out, tmp_path / "tuned")).interface.fingerprint == ""


@pytest.mark.parametrize(
    "fault", ["flipped", "other weights", "no config", "config", "foreign config", "cut", "statistics"]
)
def test_a_damaged_folder_is_one_line(fault, exported, tmp_path, capsys):
    weights, config = exported / "model.safetensors", exported / "config.json"
    if fault == "flipped":
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
    elif fault == "other weights":
        save_file({n: x + 1 for n, x in load_file(weights).items()}, weights)
    elif fault == "no config":
        config.unlink()
    elif fault == "config":
        config.write_text(config.read_text()[:-40])
    elif fault == "foreign config":
        config.write_text('{"model_type": "vit"}')
    elif fault == "statistics":
        config.write_text(config.read_text().replace("0.0", "0.1", 1))
    elif fault == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    said = {
        "no config": "no such file",
        "config": "config.json is not JSON; restore it",
        "foreign config": "describes no model of lewm; `lewm import` takes",
        "statistics": "config.json differs from its checksum",
    }.get(fault, "model.safetensors differs from its checksum in config.json")
    message = refused(capsys, ["export", str(weights), "--out", str(tmp_path / "out")])
    assert said in message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_stands_there_already_is_left_and_a_failed_export_leaves_nothing(tiny_run, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "is not empty; name another" in refused(capsys, ["export", str(tiny_run), "--out", str(tmp_path / "out")])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]

    def full(*given, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lewm.weights.save", full)
    message = refused(capsys, ["export", str(tiny_run), "--out", str(tmp_path / "b")])
    assert "cannot write" in message and "MiB are free" in message
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_empty_is_taken(tiny_run, tmp_path):
    (tmp_path / "out").mkdir()
    lewm.load(export(tiny_run, tmp_path / "out"))


def test_models_that_stable_worldmodel_has_no_module_for_are_refused(tmp_path):
    interface = lewm.Interface(image_size=16, frameskip=1, history=2, action_mean=(0.0,), action_std=(1.0,))
    vit = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    for changes, said in (
        ({"encoder": "resnet18", "encoder_kwargs": {}}, "only models with a plain ViT"),
        ({"encoder_kwargs": vit | {"reg_tokens": 2}}, "only models with a plain ViT"),
        ({"action_hidden": 9}, "no multiple of embed_dim"),
        ({"predictor_heads": 1, "predictor_head_dim": 8}, "single head"),
    ):
        sizes = {"encoder_kwargs": vit, "embed_dim": 8, "action_hidden": 16, "predictor_depth": 1} | changes
        checkpoint.save(lewm.WorldModel(interface, **sizes), tmp_path / "m.ckpt")
        with pytest.raises(UserError, match=said):
            export(tmp_path / "m.ckpt", tmp_path / "out", form="stable-worldmodel")
        assert not (tmp_path / "out").exists()


def test_the_card_says_what_the_model_takes_where_it_comes_from_and_hides_secrets(tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    command = ["lewm", "fit", "--data.path=https://me:secret@host/set?signature=hidden"]
    (run / "env.json").write_text(json.dumps({"command": command}))
    text = (export(run, tmp_path / "a") / "README.md").read_text()
    assert re.search(r"\| frames \| 16 x 16, 3 channels, uint8; others are refused \|", text)
    assert "| frameskip | 2 environment steps" in text and "| history | 2 frames |" in text
    assert "| action std | 1, 1 |" in text
    assert "| optimizer steps | 5 |" in text and f"| lewm | {lewm.__version__} |" in text
    assert "https://host/set" in text and "secret" not in text and "hidden" not in text
    assert "## License" in text and "\nlicense:" not in text
    assert "## Results" not in text


def test_the_card_has_the_reports_numbers_if_they_are_of_this_checkpoint(tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "report").mkdir(exist_ok=True)  # another test may have made one
    for digest, said in (
        (sha256(run / "checkpoints" / "step=5.ckpt"), "| Probe | 0.9 \\| x of place |"),
        ("0", "left out"),
    ):
        report = {"results": {"probe": {"checkpoint": {"sha256": digest}}}}
        report["figures"] = [{"label": "Probe", "value": "0.9 | x", "note": "of place"}]
        (run / "report" / "report.json").write_text(json.dumps(report))
        text = (export(run, tmp_path / digest) / "README.md").read_text()
        assert said in text
        assert ("0.9" in text) == (digest != "0")

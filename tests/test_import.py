"""Published weights become a checkpoint of ours that gives the published numbers; what is wrong is one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from damaged import refused
from published import FLAGS, GOLDEN, about, flags, golden, old_spelling, same
from safetensors.torch import load_file, save_file

import lewm
from lewm import checkpoint
from lewm.cli import main
from lewm.datasets.datamodule import ClipDataModule
from lewm.errors import UserError
from lewm.export import export
from lewm.importing import import_weights
from lewm.interop import from_published, to_published

CONFIG = {  # as stable-worldmodel writes it beside weights of the golden sizes
    "_target_": "stable_worldmodel.wm.lewm.LeWM",
    "encoder": {"size": "tiny", "image_size": 16, "patch_size": 8, "num_attention_heads": 3},
    "predictor": {"num_frames": 3, "heads": 2, "dim_head": 8, "dropout": 0.25},
}
STATISTICS = {name: FLAGS[name] for name in ("frameskip", "action_mean", "action_std")}


def gives_the_published_numbers(model, io) -> None:
    with torch.no_grad():
        z = model.encode(io["pixels"])
        found = {
            "emb": z,
            "pred": model.predict(io["emb"][:, :3], io["actions"][:, :3]),
            "rollout_3": model.rollout(z[:, :3], io["past"], io["future"]),
        }
    for name, value in found.items():
        torch.testing.assert_close(value, io[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lewm_swm_0.1.1", "lewm_swm_0.1.1_wide"])
@pytest.mark.parametrize("kind", ["weights.pt", "weights.safetensors", "old.pth", "lightning.ckpt"])
def test_a_state_dict_in_any_wrapping_gives_the_published_numbers(name, kind, tmp_path, capsys):
    weights, io = golden(name)
    file = tmp_path / kind
    if kind == "weights.safetensors":
        save_file(weights, file)
    elif kind == "lightning.ckpt":
        compiled = {key.replace("encoder.", "encoder._orig_mod.", 1): x for key, x in weights.items()}
        wrapped = {f"model.{key}": x for key, x in compiled.items()} | {"sigreg.t": torch.zeros(3)}
        torch.save({"state_dict": wrapped, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, file)
    else:
        torch.save(old_spelling(weights) if kind == "old.pth" else weights, file)
    assert main(["import", str(file), "--out", str(tmp_path / "run"), *flags()]) == 0
    said = capsys.readouterr().out
    assert f"written: {tmp_path / 'run' / 'checkpoints' / 'step=0.ckpt'}" in said
    assert ("left out: sigreg.t" in said) == (kind == "lightning.ckpt")
    model = lewm.load(tmp_path / "run")
    gives_the_published_numbers(model, io)
    assert same(model.state_dict(), from_published(weights))
    assert (model.interface.action_mean, model.interface.action_std) == ((0.25, -0.5), (0.5, 2.0))


def test_a_folder_with_stable_worldmodels_config_says_its_sizes(tmp_path):
    weights, io = golden()
    torch.save(weights, tmp_path / "weights_epoch_9.pt")
    for config in (CONFIG, {"model": CONFIG, "seed": 1}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        run = tmp_path / f"run{len(config)}"
        model = lewm.load(import_weights(tmp_path, run, **STATISTICS))
        gives_the_published_numbers(model, io)
        assert model.config["dropout"] == 0.25


def test_heads_that_nothing_says_are_64_wide_and_that_is_said(tmp_path, capsys):
    made = lewm.WorldModel(
        lewm.Interface(image_size=16, frameskip=1, history=2, action_mean=(0.0,), action_std=(1.0,)),
        encoder_kwargs={"patch_size": 8, "embed_dim": 128, "depth": 1, "num_heads": 2},
        embed_dim=8,
        predictor_depth=1,
        predictor_heads=3,
    )
    state = dict(made.state_dict())
    torch.save(to_published(state), tmp_path / "w.pt")
    asked = flags(
        image_size=16, frameskip=1, history=2, action_mean=0, action_std=1, encoder_heads=None, predictor_heads=None
    )
    assert main(["import", str(tmp_path / "w.pt"), "--out", str(tmp_path / "run"), *asked]) == 0
    assert "heads 64 wide: --encoder_heads 2, --predictor_heads 3" in capsys.readouterr().out
    assert lewm.load(tmp_path / "run").config["predictor_heads"] == 3


def test_statistics_of_a_data_set_are_those_of_its_training_split_and_nothing_counts_as_held_out(walks, tmp_path):
    torch.save(golden()[0], tmp_path / "w.pt")
    given = {n: v for n, v in FLAGS.items() if not n.startswith("action")}
    model = lewm.load(import_weights(tmp_path / "w.pt", tmp_path / "run", data=str(walks), **given))
    expected = ClipDataModule(str(walks), num_frames=4, frameskip=2).interface
    assert model.interface.action_mean == expected.action_mean != (0.0, 0.0)
    assert model.interface.action_std == expected.action_std
    assert expected.fingerprint
    assert model.interface.fingerprint == ""  # it was split otherwise where the weights were trained


def test_all_that_no_file_says_is_asked_for_in_one_line(tmp_path, capsys):
    torch.save(golden()[0], tmp_path / "w.pt")
    command = ["import", str(tmp_path / "w.pt"), "--out", str(tmp_path / "run")]
    heads = ["--encoder_heads=3", "--predictor_heads=2"]
    message = refused(capsys, [*command, *heads])
    for part in ("--image_size", "--frameskip", "--history", "--action_mean and --action_std, or --data"):
        assert part in message
    assert "frames of 16 x 16, a history of 3, and blocks of frameskip x action size = 4" in message
    for name in ("image_size", "frameskip", "history"):
        message = refused(capsys, [*command, *flags(**{name: None})])
        assert f"give --{name} (" in message
    assert "--encoder_heads" in refused(capsys, [*command, *flags(encoder_heads=None)])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 24}, "positions are of 16 x 16"),
        ({"history": 2}, "predictor sees 3 frames"),
        ({"frameskip": 3}, "make blocks of 6, but the weights take 4"),
        ({"action_mean": (0.0,)}, "--action_mean has 1 numbers, --action_std 2"),
        ({"action_std": None}, "go together"),
        ({"action_std": (1.0, 0.0)}, "above 0"),
        ({"action_std": "nan,1"}, "finite"),
        ({"action_mean": "one,two"}, "give numbers by commas"),
        ({"data": "x.h5"}, "give the one or the others"),
        ({"encoder_heads": 5}, "not shared evenly"),
        ({"frameskip": -2}, "must not be negative"),
    ],
)
def test_what_contradicts_the_weights_is_refused(changes, said, tmp_path, capsys):
    torch.save(golden()[0], tmp_path / "w.pt")
    assert said in refused(
        capsys, ["import", str(tmp_path / "w.pt"), "--out", str(tmp_path / "run"), *flags(**changes)]
    )
    assert not (tmp_path / "run").exists()


class Payload(torch.nn.Module):
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def test_a_pickled_object_is_refused_unread_and_the_way_out_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Payload(), "lewm_object.ckpt")
    torch.save({"state_dict": golden()[0], "cfg": Payload()}, "wrapped.ckpt")
    torch.save(Payload(), "legacy.pt", _use_new_zipfile_serialization=False)
    Path("plain.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("lewm_object.ckpt", "wrapped.ckpt", "legacy.pt", "plain.pt"):
        message = refused(capsys, ["import", name, "--out", "run", *flags()])
        assert f"{name} is a pickled object" in message
        assert "torch.save(model.state_dict()" in message
    assert not Path("PWNED").exists()
    assert not Path("run").exists()


def damage(name: str, folder: Path) -> Path:
    """A file with one fault."""
    weights, path = dict(golden()[0]), folder / "w.pt"
    if name == "cut":
        torch.save(weights, path)
        path.write_bytes(path.read_bytes()[:-3000])
    elif name == "flipped":
        torch.save(weights, path)
        content = bytearray(path.read_bytes())
        content[content.index(weights["projector.net.0.weight"].numpy().tobytes()) + 99] ^= 1
        path.write_bytes(content)
    elif name == "cut safetensors":
        path = folder / "w.safetensors"
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[:-3000])
    elif name == "text":
        path.write_bytes(b"text" * 100)
    elif name == "empty":
        path.touch()
    elif name == "not finite":
        weights["projector.net.0.weight"] = torch.full((32, 24), torch.nan)
        torch.save(weights, path)
    elif name == "another model":
        torch.save({"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, path)
    elif name == "a list":
        torch.save([torch.zeros(2)], path)
    elif name == "weight missing":
        del weights["predictor.transformer.layers.1.mlp.net.4.bias"]
        torch.save(weights, path)
    elif name == "weight too many":
        torch.save(weights | {"reward.weight": torch.zeros(2)}, path)
    elif name == "swelling":
        torch.save(weights | {"pred_proj.net.3.bias": torch.zeros(1).expand(16)}, path)
    elif name == "key missing":
        del weights["encoder.layers.1.attention.k_proj.weight"]
        torch.save(weights, path)
    elif name == "two sizes":
        weights["pred_proj.net.3.bias"] = torch.zeros(5)
        torch.save(weights, path)
    elif name == "name":
        path = folder / "w.onnx"
        path.touch()
    elif name == "two files":
        torch.save(weights, folder / "a.pt")
        torch.save(weights, folder / "b.pt")
        path = folder
    elif name == "config":
        torch.save(weights, path)
        (folder / "config.json").write_text("{")
    return path


SAID = {
    "cut": "not a readable weight file",
    "flipped": "not a readable weight file",
    "cut safetensors": "not a readable safetensors file",
    "text": "not a readable weight file",
    "empty": "not a readable weight file",
    "not finite": "projector.net.0.weight in .* is not finite",
    "another model": "no LeWM in .*begins with fc.weight, fc.bias",
    "a list": "holds no weights by name",
    "weight missing": r"layers.1.mlp.net.4.bias is missing",
    "weight too many": "has no reward.weight",
    "swelling": "its weights are not the tensors that it holds",
    "key missing": "only 2 are there",
    "two sizes": r"pred_proj.net.3.bias has the shape \(5,\), a LeWM of these sizes has \(16,\)",
    "name": "no weight file by its name",
    "two files": "it has: a.pt, b.pt; name the file itself",
    "config": "config.json is not JSON",
}


@pytest.mark.parametrize("fault", SAID)
def test_damaged_and_foreign_files_are_one_line_and_leave_nothing(fault, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    path = damage(fault, source)
    message = refused(capsys, ["import", str(path), "--out", str(tmp_path / "run"), *flags()])
    assert re.search(SAID[fault], message), message
    assert not (tmp_path / "run").exists()


def test_a_run_that_holds_checkpoints_and_a_checkpoint_of_ours_are_left_alone(tiny_run, tmp_path, capsys):
    torch.save(golden()[0], tmp_path / "w.pt")
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    before = (run / "checkpoints" / "step=5.ckpt").read_bytes()
    message = refused(capsys, ["import", str(tmp_path / "w.pt"), "--out", str(run), *flags()])
    assert "holds checkpoints already" in message
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step=5.ckpt"]
    assert (run / "checkpoints" / "step=5.ckpt").read_bytes() == before
    own = str(run / "checkpoints" / "step=5.ckpt")
    assert "a checkpoint of lewm already" in refused(capsys, ["import", own, "--out", str(tmp_path / "b"), *flags()])


@pytest.fixture
def two_room(tmp_path) -> list[str]:
    """An imported run and episodes of Two-Room, as words of a command line."""
    collect = ["collect", "two_room", "--out", str(tmp_path / "data"), "--episodes", "12", "--image-size", "16"]
    assert main([*collect, "--policy", "wander"]) == 0
    torch.save(golden()[0], tmp_path / "w.pt")
    import_weights(tmp_path / "w.pt", tmp_path / "run", **(FLAGS | {"action_mean": (0.0, 0.0)}))
    return [str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--split", "all"]


def test_an_imported_model_is_surprised_and_planned_with(two_room, capsys):
    assert main(["surprise", *two_room, "--kinds", "teleport", "--max_clips", "4", "--depth", "1"]) == 0
    search = [
        "--samples",
        "4",
        "--iterations",
        "1",
        "--horizon",
        "2",
        "--offset",
        "10",
        "--budget",
        "4",
        "--films",
        "0",
    ]
    assert main(["plan", *two_room, "--env", "two_room", "--pairs", "2", "--seeds", "1", *search]) == 0
    assert "what the model was trained on is not known" in capsys.readouterr().out
    assert main(["report", two_room[0]]) == 0


@pytest.mark.slow
def test_an_imported_model_is_probed_and_what_it_has_seen_is_not_claimed_to_be_known(two_room, tmp_path):
    assert main(["probe", *two_room, "--max_frames", "100", "--layers", "cls"]) == 0
    result = json.loads((tmp_path / "run" / "report" / "probe" / "result.json").read_text())
    assert result["trained_on_this_data"] is False


def test_the_checkpoint_says_which_file_it_was_made_of(tmp_path):
    torch.save(golden()[0], tmp_path / "w.pt")
    made = checkpoint.read(import_weights(tmp_path / "w.pt", tmp_path / "run", **FLAGS))
    assert made["lewm"]["imported"]["file"] == "w.pt"
    assert len(made["lewm"]["imported"]["sha256"]) == 64
    with pytest.raises(UserError, match="without the state of its training"):
        checkpoint.check_resumable(tmp_path / "run" / "checkpoints" / "step=0.ckpt")


def test_the_paper_sized_model_of_stable_worldmodel_gives_its_numbers_and_comes_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(GOLDEN)
    from drawn import ACTION_MEAN, ACTION_STD, digest, drawn, drawn_inputs

    name = "lewm_swm_0.1.1_paper"
    known = about(name)
    weights = {n: np.asarray(drawn(n, tuple(shape))) for n, shape in known["shapes"].items()}
    inputs = drawn_inputs()
    assert (digest(weights), digest(inputs)) == (known["weights"], known["inputs"])
    state = {n: torch.from_numpy(value) for n, value in weights.items()}
    given = {"frameskip": 5, "action_mean": ACTION_MEAN, "action_std": ACTION_STD}
    (tmp_path / "config.json").write_text(json.dumps(known["config"]))
    torch.save(state, tmp_path / "weights.pt")
    model = lewm.load(import_weights(tmp_path, tmp_path / "run", **given))
    expected = load_file(GOLDEN / f"{name}.safetensors")
    pixels, past, future = (torch.from_numpy(inputs[n]) for n in ("pixels", "past", "future"))
    with torch.no_grad():
        z = model.encode(pixels)
        pred = model.predict(expected["emb"][:, :3], torch.cat([past, future[:, 0, :1]], dim=1))
        ahead = model.rollout(z[:, :3], past, future)
    for found, key in ((z, "emb"), (pred, "pred"), (ahead, "rollout")):
        torch.testing.assert_close(found, expected[key], rtol=0, atol=1e-5)

    old = tmp_path / "old.pth"
    torch.save(old_spelling(state), old)
    (tmp_path / "config.json").unlink()
    again = lewm.load(import_weights(old, tmp_path / "old", image_size=224, history=3, **given))
    assert same(again.state_dict(), model.state_dict())
    for spelling, theirs in ((5, state), (4, old_spelling(state))):
        out = export(tmp_path / "run", tmp_path / f"out{spelling}", form="stable-worldmodel", spelling=spelling)
        assert same(torch.load(out / "weights.pt", weights_only=True), theirs)

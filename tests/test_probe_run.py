import csv
import json

import h5py
import numpy as np
import pytest
import torch

from lewm import checkpoint as checkpoints
from lewm.clip import Interface
from lewm.errors import UserError
from lewm.probes.results import flat, plain
from lewm.probes.run import probe, surprise

SCORES = {"mse", "mse_std", "r", "r2", "r_ci95", "per_component"}
COMMON = {"command", "checkpoint", "data", "split", "seed", "versions"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with one checkpoint of a tiny model."""
    torch.manual_seed(0)
    interface = Interface(image_size=16, frameskip=2, history=2, action_mean=(0.0, 0.0), action_std=(1.0, 1.0))
    model = checkpoints.WorldModel(
        interface,
        encoder_kwargs={"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
        embed_dim=12,
        projector_hidden=16,
        action_hidden=16,
        predictor_depth=1,
        predictor_heads=1,
        predictor_head_dim=8,
        predictor_mlp=16,
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints.save(model, folder / "checkpoints" / "step=5.ckpt")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty episodes of a bright square that walks by its actions."""
    return write_data(tmp_path_factory.mktemp("data") / "walk.h5", 40)


def write_data(path, episodes, length=24, size=16):
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (episodes, length, 2)).astype(np.float32)
    moved = np.concatenate([np.zeros((episodes, 1, 2)), np.cumsum(action[:, :-1], axis=1)], axis=1)
    state = np.clip(rng.uniform(3, size - 4, (episodes, 1, 2)) + moved, 1, size - 3)
    pixels = np.full((episodes, length, size, size, 3), 255, dtype=np.uint8)
    for e, t in np.ndindex(episodes, length):
        x, y = state[e, t].astype(int)
        pixels[e, t, y : y + 3, x : x + 3] = (200, 20, 20)
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = pixels.reshape(-1, size, size, 3), action.reshape(-1, 2)
        file["state"] = state.reshape(-1, 2).astype(np.float32)
        file["ep_len"] = np.full(episodes, length, dtype=np.int32)
        file["ep_offset"] = np.arange(episodes, dtype=np.int64) * length
    return path


@pytest.fixture(scope="module")
def probed(run, data):
    return probe(run, data=data, max_frames=300)


def test_probe_writes_what_the_design_asks_for(probed, run, capsys):
    out = run / "report" / "probe"
    assert json.loads((out / "result.json").read_text()) == probed
    assert set(probed) >= COMMON | {"targets", "layers", "n_train", "n_test", "episodes_test", "open_loop", "latent"}
    target = probed["targets"]["agent_position"]
    for probe_ in ("linear", "mlp"):
        assert set(target[probe_]) >= SCORES
        assert len(target[probe_]["per_component"]) == 2
        assert set(probed["layers"]["cls"]["targets"]["agent_position"][probe_]) >= SCORES
        for control in ("untrained", "shuffled", "pixels"):
            assert set(target["controls"][control][probe_]) >= SCORES
    assert target["controls"]["constant"]["r"] is None
    assert target["controls"]["constant"]["mse"] > 0.5
    assert probed["checkpoint"]["path"].endswith("step=5.ckpt") and len(probed["checkpoint"]["sha256"]) == 64
    assert {"lewm", "torch", "numpy"} <= set(probed["versions"])
    assert set(probed["data"]) == {"path", "fingerprint"}
    assert set(probed["open_loop"][0]) >= {"h", "mse", "mse_ci95", "copy_last_mse", "shuffled_action_mse", "n"}
    ahead = probed["horizon"]["agent_position"]
    assert [row["h"] for row in ahead] == [row["h"] for row in probed["open_loop"]]
    assert all(set(row) >= {"h", "r", "r_ci95", "mse", "copy_last_r", "n"} for row in ahead)
    for name in ("scatter", "correlations", "spectrum", "open_loop"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob(".*"))  # no temporary files


def test_pixels_tell_the_position_of_a_square_and_shuffled_targets_do_not(probed):
    controls = probed["targets"]["agent_position"]["controls"]
    assert controls["pixels"]["mlp"]["r"] > 0.7  # 12 principal components of 256 pixels do not tell all
    assert controls["pixels"]["mlp"]["r"] > controls["shuffled"]["mlp"]["r"] + 0.3


def test_result_csv_holds_every_value_of_result_json(probed, run):
    with (run / "report" / "probe" / "result.csv").open(newline="") as file:
        rows = {row["name"]: row["value"] for row in csv.DictReader(file)}
    assert float(rows["targets.agent_position.linear.r"]) == probed["targets"]["agent_position"]["linear"]["r"]
    assert len(rows) == len(list(flat(probed)))


def test_the_same_seed_gives_the_same_numbers(probed, run, data, tmp_path):
    again = probe(run, data=data, max_frames=300, out=tmp_path / "again")
    for name in ("targets", "layers", "horizon", "open_loop", "latent", "parts"):
        assert again[name] == probed[name]


def test_probe_on_validation_and_on_all_says_so_and_keeps_parts_apart(run, data, tmp_path):
    found = probe(run, data=data, max_frames=60, split="val", layers=("embedding",), out=tmp_path)
    assert found["split"] == "val" and "measured on val" in found["how"]
    assert found["layers"] == {}
    assert "it may have seen" in probe(run, data=data, max_frames=60, split="all", out=tmp_path)["how"]


def test_surprise_of_disturbed_episodes_writes_what_the_design_asks_for(run, data):
    result = surprise(run, data=data, split="all", max_clips=40)
    out = run / "report" / "surprise"
    assert json.loads((out / "result.json").read_text()) == result
    assert set(result) >= COMMON | {"kinds", "physical_vs_visual", "baselines"}
    keys = {"n", "auroc", "auroc_ci95", "p_paired_t", "p_wilcoxon", "effect_size", "localised", "localised_within_1"}
    for scores in (result, *result["baselines"].values()):
        assert set(scores["kinds"]) == {"visual", "physical"}
        assert all(set(kind) >= keys for kind in scores["kinds"].values())
        assert set(scores["physical_vs_visual"]) >= {"auroc", "auroc_ci95", "n"}
    assert set(result["baselines"]) == {"untrained", "pixel_difference", "copy_last"}
    assert result["n"] == 40
    assert result["baselines"]["pixel_difference"]["kinds"]["physical"]["auroc"] > 0.7
    assert {path.name for path in out.glob("*.png")} == {"curves.png", "scores.png"}


def test_frames_of_another_size_are_refused_until_resize_is_asked_for(run, tmp_path):
    path = write_data(tmp_path / "large.h5", 6, size=24)
    with pytest.raises(UserError, match="24 x 24, the model takes 16 x 16"):
        surprise(run, data=path, split="all", out=tmp_path)
    assert surprise(run, data=path, split="all", resize=True, out=tmp_path)["resize"] is True


def test_an_empty_part_and_an_unusable_folder_are_the_users_errors(run, tmp_path):
    path = write_data(tmp_path / "few.h5", 2)
    for evaluate, message in ((probe, r"is empty .*--split all"), (surprise, "use --split all")):
        with pytest.raises(UserError, match=message):
            evaluate(run, data=path, out=tmp_path)
        with pytest.raises(UserError, match="cannot make the folder"):
            evaluate(run, data=path, out=path / "below_a_file")
    loose = tmp_path / "loose.ckpt"
    loose.write_bytes(next(run.glob("checkpoints/*")).read_bytes())
    with pytest.raises(UserError, match="--out DIR"):
        probe(loose, data=path)


def test_json_holds_no_nan_and_no_foreign_types():
    found = plain({"a": np.float32(0.5), "b": [np.nan, np.inf, 1], "c": np.arange(2), 3: (np.bool_(True), None)})
    assert found == {"a": 0.5, "b": [None, None, 1], "c": [0, 1], "3": [True, None]}

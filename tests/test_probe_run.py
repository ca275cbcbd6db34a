import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import write_walks

from lewm import checkpoint as checkpoints
from lewm.cli import main
from lewm.errors import UserError
from lewm.probes.probe_run import probe
from lewm.probes.results import flat, plain
from lewm.probes.surprise_run import surprise

SCORES = {"mse", "mse_std", "r", "r2", "r_ci95", "per_component"}
COMMON = {"command", "checkpoint", "data", "split", "seed", "versions"}


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def data(walks):
    return walks


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
    assert found["targets"]["agent_position"]["linear"]["error"] > 0


def test_an_empty_part_and_an_unusable_folder_are_the_users_errors(run, tmp_path):
    path = write_walks(tmp_path / "few.h5", 2)
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


def targets_file(tmp_path, entry):
    path = tmp_path / "t.yaml"
    path.write_text(f"- {entry}")
    return str(path)


def flawed(source, path, change):
    """A copy of a data file whose `state` was changed."""
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        values = file["state"][:]
        change(values)
        file["state"][:] = values
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, column: wind, slice: [0, 2]}", "no column 'wind'.*it has: action, state"),
        ("{name: a, column: state, slice: [1, 3]}", "needs numbers .1, 3. of the column 'state', which has 2"),
        ("{name: a, column: state, slice: [0, 2], kind: quaternion}", "a quaternion has four numbers"),
        ("{name: a, column: state, slice: [0, 2], kind: velocity, frames: 1}", "frames of 'a'.*from 2"),
        ("{name: a, column: state, slice: [0, 2], image: {left: 0}}", "image of 'a'.*left, right, top, bottom"),
        ("{name: a, column: state, slice: [0, 2], frames: 13}", "13 frames 2 rows apart.*25 rows"),
    ],
)
def test_targets_that_cannot_be_are_one_line_and_exit_code_2(run, data, tmp_path, capsys, entry, message):
    command = ["probe", str(run), "--data", str(data), "--out", str(tmp_path / "out"), "--targets"]
    assert main([*command, targets_file(tmp_path, entry)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lewm: error: ") and re.search(message, line)
    assert not list((tmp_path / "out").glob("*"))


def test_constant_and_mostly_missing_quantities_are_refused_and_few_missing_ones_counted(run, data, tmp_path, capsys):
    def spoil(share):
        def change(values):
            values[: int(share * len(values))] = np.nan

        return change

    def hold(values):
        values[:] = 3

    for name, change, message in (("c.h5", hold, "is constant"), ("n.h5", spoil(0.7), "is NaN or infinite in")):
        path = flawed(data, tmp_path / name, change)
        assert main(["probe", str(run), "--data", str(path), "--out", str(tmp_path / "out")]) == 2
        assert re.search(message, capsys.readouterr().err.splitlines()[-1])
    few = flawed(data, tmp_path / "f.h5", lambda values: values.__setitem__(slice(None, None, 10), np.nan))
    found = probe(run, data=few, max_frames=100_000, out=tmp_path / "few", layers=("embedding",))
    dropped = found["targets"]["agent_position"]["dropped"]
    assert dropped["train"] + dropped["val"] + dropped["test"] == 96


def test_a_frameskip_that_does_not_fit_the_data_is_refused(run, tmp_path):
    path = write_walks(tmp_path / "short.h5", 40, length=2)
    with pytest.raises(UserError, match=r"frameskip is 2.*longest episode of .* has 2 rows"):
        probe(run, data=path, out=tmp_path, split="all")


def test_few_episodes_are_measured_in_folds_and_their_intervals_marked(run, tmp_path, capsys):
    path = write_walks(tmp_path / "few.h5", 12)
    with pytest.raises(UserError, match="--split all"):
        probe(run, data=path, out=tmp_path)
    found = probe(run, data=path, out=tmp_path, split="all")
    assert found["episodes_test"] == 12 and found["folds"] == 5 and found["n_test"] == 12 * 24
    assert found["targets"]["agent_position"]["linear"]["ci_reliable"] is False
    assert "not reliable" in capsys.readouterr().out


def test_any_layer_of_the_encoder_can_be_read_and_an_unknown_one_is_refused(run, data, tmp_path):
    layers = ("embedding", "encoder.backbone.blocks.0", "encoder.backbone.blocks.0:mean")
    found = probe(run, data=data, max_frames=200, layers=layers, out=tmp_path)
    assert set(found["layers"]) == set(layers[1:])
    with pytest.raises(UserError, match=r"no layer .blocks\.9. to probe"):
        probe(run, data=data, max_frames=200, layers=("blocks.9",), out=tmp_path)


def test_cached_embeddings_give_the_numbers_of_computed_ones(run, data, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report", "cache"))
    first = probe(copy, data=data, max_frames=200)
    files = sorted((copy / "cache").glob("*.npz"))
    assert len(files) == 4  # embedding, cls, untrained, pixels
    again = probe(copy, data=data, max_frames=200)
    fresh = probe(copy, data=data, max_frames=200, cache=False, out=tmp_path / "out")
    assert first["targets"] == again["targets"] == fresh["targets"]
    assert sorted((copy / "cache").glob("*.npz")) == files


def trained_a_little(run, folder, step, scale):
    """A checkpoint of the same architecture whose embedding is blurred by noise of this scale."""
    model = checkpoints.load(run)
    with torch.no_grad():
        for weight in model.projector.parameters():
            weight += scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
    checkpoints.save(model, folder / f"step={step}.ckpt")


def test_the_best_of_several_checkpoints_is_chosen_on_validation_and_measured_on_test(run, data, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for step, scale in ((10, 30.0), (20, 0.0), (30, 3.0)):
        trained_a_little(run, folder, step, scale)
    content = checkpoints.read(folder / "step=20.ckpt")
    checkpoints.write(content | {"callbacks": {"best": 1}}, folder / "best.ckpt")  # the same model in other bytes
    found = probe(folder, data=data, max_frames=300)
    rows = found["checkpoints"]
    assert [Path(row["path"]).name for row in rows] == ["step=10.ckpt", "step=20.ckpt", "step=30.ckpt"]
    assert {row["split"] for row in rows} == {"val"} and found["split"] == "test"
    assert sum(row["best"] for row in rows) == 1
    best = next(row for row in rows if row["best"])
    assert best["val_error"] == min(row["val_error"] for row in rows) and best["as_good"]
    assert found["chosen"] == found["checkpoint"]["path"] == best["path"]
    assert (tmp_path / "run" / "report" / "probe" / "checkpoints.png").is_file()
    one = probe(best["path"], data=data, max_frames=300, out=tmp_path / "one")
    # To rounding: on some CPUs an embedding's last digits depend on how many frames are encoded together.
    alone, chosen = (dict(flat(result["targets"])) for result in (one, found))
    numbers = {name for name, value in chosen.items() if isinstance(value, float)}
    assert {n: alone[n] for n in numbers} == pytest.approx({n: chosen[n] for n in numbers}, rel=1e-4, abs=1e-6)
    assert {n: v for n, v in alone.items() if n not in numbers} == {n: v for n, v in chosen.items() if n not in numbers}
    assert "checkpoints" not in one
    listed = [str(folder / "step=10.ckpt"), str(folder / "step=20.ckpt")]
    assert len(probe(listed, data=data, max_frames=300, out=tmp_path / "two")["checkpoints"]) == 2


def test_checkpoints_that_hold_out_other_episodes_cannot_be_compared(run, data, tmp_path):
    model = checkpoints.load(run)
    for name, changes in (("a", {}), ("b", {"split_seed": 1}), ("c", {"history": 4})):
        model = checkpoints.WorldModel(replace(model.interface, **({"split_seed": 0} | changes)), **model.config)
        checkpoints.save(model, tmp_path / f"{name}.ckpt")
    for other, message in (("b", "split seed 0.*those of 1"), ("c", "agent_velocity is read from several frames")):
        with pytest.raises(UserError, match=message):
            probe([tmp_path / "a.ckpt", tmp_path / f"{other}.ckpt"], data=data, out=tmp_path / "out")


def test_checkpoints_of_several_runs_need_a_place_for_their_results(run, data, tmp_path):
    other = tmp_path / "other" / "checkpoints"
    other.mkdir(parents=True)
    trained_a_little(run, other, 7, 1.0)
    with pytest.raises(UserError, match=r"of 2 runs; say where the results go with --out"):
        probe([str(run), str(other)], data=data)

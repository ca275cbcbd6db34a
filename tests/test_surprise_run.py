import csv
import json
import shutil
from dataclasses import replace

import av
import h5py
import numpy as np
import pytest
import torch
from conftest import write_walks
from PIL import Image

from lewm.cli import main
from lewm.datasets.schema import open_source
from lewm.datasets.split import episodes_of
from lewm.errors import UserError
from lewm.probes.depths import known_before, open_loop_errors
from lewm.probes.ordinary import Part, calibrate, clips_of, find_reference, ordinary_steps, trained_on
from lewm.probes.setting import prepare
from lewm.probes.surprise import ModelScorer
from lewm.probes.surprise_run import surprise

COMMON = {"command", "checkpoint", "data", "split", "seed", "versions"}
KEYS = {
    *("n", "nature", "auroc", "auroc_ci95", "p_paired_t", "p_paired_t_holm", "p_wilcoxon", "p_wilcoxon_holm"),
    *("effect_size", "clips_needed", "localised", "localised_within_1"),
}
PICTURES = {"curves", "roc", "scores", "extremes", "depths", "sheet"}


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def data(walks):
    return walks


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Three hundred and twenty episodes, so that the validation split says what is ordinary."""
    return write_walks(tmp_path_factory.mktemp("data") / "many.h5", 320)


def test_every_kind_is_made_of_episodes_and_judged_in_every_way(run, many):
    result = surprise(run, data=many, max_clips=20, depth=2)
    out = run / "report" / "surprise"
    assert json.loads((out / "result.json").read_text()) == result
    with (out / "result.csv").open() as file:
        assert "kinds.teleport.auroc" in {row["name"] for row in csv.DictReader(file)}
    assert {path.stem for path in out.glob("*.png")} >= PICTURES
    assert set(result) >= COMMON | {"kinds", "physical_vs_visual", "baselines", "alarms", "excluded", "reference"}
    assert len(result["natures"]) == 11 and set(result["natures"].values()) == {"physical", "visual"}
    forms = [
        result,
        result["calibrated"],
        result["fading"],
        *result["depths"].values(),
        *result["calibrated_depths"].values(),
    ]
    for scores in (*forms, *result["baselines"].values()):
        assert set(scores["kinds"]) == set(result["natures"])
        assert all(set(kind) >= KEYS for kind in scores["kinds"].values())
        assert set(scores["physical_vs_visual"]) >= {"auroc", "auroc_ci95", "n"}
    assert set(result["baselines"]) == {"untrained", "pixel_difference", "copy_last"}
    with np.load(out / "steps.npz") as arrays:
        assert arrays["kinds"].tolist() == ["unperturbed", *result["natures"]]
        assert np.allclose(arrays["per_dimension"].mean(axis=-1), arrays["model"], equal_nan=True, rtol=1e-5)
        assert arrays["event"].shape == arrays["p_value"].shape[:2] == (result["n"], 12)
        column = 1 + list(result["natures"]).index("freeze")
        has = arrays["event"][:, column] >= 0
        hits = arrays["p_value"][has, column, arrays["event"][has, column]] <= 0.01
        assert hits.mean() == result["alarms"]["events"]["freeze"]["rate"]
    for kind, excluded in result["excluded"].items():
        assert result["kinds"][kind]["n"] + excluded == result["n"]
    assert result["baselines"]["pixel_difference"]["kinds"]["teleport"]["auroc"] > 0.7
    exchanged = result["baselines"]["pixel_difference"]["kinds"]["exchanged_actions"]
    assert exchanged["auroc"] == 0.5 and exchanged["auroc_ci95"][0] < 0.5 < exchanged["auroc_ci95"][1]


def test_kinds_can_be_chosen_and_unknown_ones_are_refused(run, data, tmp_path):
    result = surprise(run, data=data, split="all", kinds="freeze, recolour", max_clips=10, out=tmp_path)
    assert list(result["natures"]) == ["freeze", "recolour"]
    assert result["reference"] is None and "--reference PATH" in result["not_calibrated"]
    with pytest.raises(UserError, match=r"no violation 'moved' is made this way; there are: .*teleport"):
        surprise(run, data=data, split="all", kinds="moved", out=tmp_path)


def test_ordinary_steps_come_from_validation_episodes_that_are_not_measured(run, many, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(many)
    val = set(episodes_of("val", 0, source.keys).tolist())
    test, _ = find_reference(setting, "auto", Part(source, episodes_of("test", 0, source.keys)))
    assert set(test.episodes.tolist()) == val
    result = surprise(run, data=many, split="val", kinds="teleport", max_clips=50, out=tmp_path)
    assert result["groups"] == len(val) // 2  # the other half says what is ordinary
    result = surprise(run, data=many, split="val", kinds="teleport", max_clips=50, out=tmp_path, reference="none")
    assert result["groups"] == len(val)  # nothing is set aside for what is not asked for
    none, why = find_reference(setting, "auto", Part(source, np.arange(320)))
    assert none is None and "is measured itself" in why
    none, why = find_reference(setting, "auto", None)
    assert none is None and "not at hand" in why


def test_measured_episodes_are_known_in_a_copy_under_another_name(run, many, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(many)
    shutil.copy(many, tmp_path / "other.h5")  # without an id column keys, and so the split, are by name
    every, copy = Part(source, np.arange(320)), str(tmp_path / "other.h5")
    with pytest.raises(UserError, match="is measured itself"):
        find_reference(setting, copy, every)
    measured = Part(source, np.arange(100))
    found, _ = find_reference(setting, copy, measured)
    assert len(found.episodes) > 0 and (found.episodes >= 100).all()


def test_the_data_a_model_was_trained_on_are_found_by_its_run_and_told_from_others(run, many, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "config.yaml").write_text(f"data: {{path: {many}}}")
    setting = prepare(folder / "checkpoints" / "step=5.ckpt", tmp_path, 0)
    assert trained_on(setting) is None  # of another fingerprint
    setting.model.interface = replace(setting.model.interface, fingerprint=open_source(many).fingerprint())
    assert trained_on(setting).path == many


def test_ordinary_errors_stand_at_their_depth_with_their_episode_and_what_was_known(run, data, tmp_path):
    setting = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0)
    source, model = open_source(data), setting.model
    found = ordinary_steps(model, Part(source, np.array([4, 9])), 5, 3)
    k, rows = model.interface.frameskip, []
    for episode in (4, 9):
        for first, num in ((0, 5), (4, 5), (8, 4)):  # 24 rows at frameskip 2: frames 0..11
            pixels = torch.from_numpy(source.frames(episode, (first + np.arange(num)) * k))[None]
            blocks = torch.from_numpy(
                source.actions(episode)[first * k : (first + num - 1) * k].reshape(1, num - 1, k, 2)
            )
            with torch.inference_mode():
                z = model.encode(pixels)
                errors = open_loop_errors(model, z, blocks, 3)
                rows.append((episode, errors[0].numpy(), known_before(model, z, blocks, errors)[0].numpy()))
    for n in range(3):
        assert np.allclose(found[n].error, np.concatenate([e[n, n:] for _, e, _ in rows]), atol=1e-5)
        assert np.allclose(found[n].known, np.concatenate([b[n, n:] for _, _, b in rows]), atol=1e-5)
        assert found[n].episode.tolist() == [episode for episode, e, _ in rows for _ in range(e.shape[1] - n)]
    assert len(found[0].error) == 22  # every step once


def test_each_depth_is_judged_by_its_own_calibration(run, many, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(many)
    part = Part(source, episodes_of("val", 0, source.keys))
    calibrations = calibrate(setting, part, 12, 3)
    pixels = torch.from_numpy(source.frames(0, np.arange(0, 24, 2)))[None]
    blocks = torch.from_numpy(source.actions(0)[:22].reshape(1, 11, 2, 2))
    with torch.inference_mode():
        found = ModelScorer(setting.model, 3, calibrations)(pixels, blocks)
        z = setting.model.encode(pixels)
        errors = open_loop_errors(setting.model, z, blocks, 3)
        known = known_before(setting.model, z, blocks, errors)
    for n, name in enumerate(("calibrated", "calibrated_depth_2", "calibrated_depth_3")):
        late = [x[0, n, n:].double().numpy() for x in (errors, known)]
        assert np.allclose(found[name][0, n:], calibrations[n].score(*late), rtol=1e-4)


def test_a_clip_file_is_calibrated_with_the_data_named(run, many, tmp_path):
    path = tmp_path / "clips.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["pixels"] = rng.integers(0, 255, (1, 1, 9, 16, 16, 3), dtype=np.uint8).repeat(3, axis=1)
        file["action"] = np.zeros((1, 3, 9, 2), dtype=np.float32)
        file["perturb_step"], file["kind"] = [4], np.array(["unperturbed", "visual", "physical"], dtype="S")
        pixels = file["pixels"][:]
        pixels[0, 1:, 4:] = 255 - pixels[0, 1:, 4:]
        file["pixels"][:] = pixels
    result = surprise(run, data=path, out=tmp_path, reference=str(many))
    assert result["reference"]["path"] == str(many) and result["alarms"]["ordinary_steps"] == 4
    assert result["split"] == "all" and result["n"] == 1
    assert list(result["depths"]) == ["2", "3", "4"] and len(result["calibrated_depths"]) < 3  # too few deep steps
    for wrong in ({"kinds": "freeze"}, {"split": "all"}):
        with pytest.raises(UserError, match="has clips of its own"):
            surprise(run, data=path, out=tmp_path, **wrong)


def test_a_reference_that_is_too_small_is_refused_where_it_was_named(run, data, tmp_path):
    with pytest.raises(UserError, match="needs 200 ordinary steps"):
        surprise(run, data=data, kinds="teleport", split="train", out=tmp_path, reference=str(data))


def test_ordinary_clips_do_not_overlap_and_stay_inside_their_episodes(run, data, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(data)
    found, _ = find_reference(setting, str(data), None)
    clips = clips_of(found, 4, 2)
    for episode in found.episodes:
        assert [(s, num) for e, s, num in clips if e == episode] == [(0, 4), (6, 4), (12, 4), (18, 3)]
    assert len(source.keys) == 40


def test_frames_of_another_size_are_refused_until_resize_is_asked_for(run, tmp_path):
    path = write_walks(tmp_path / "large.h5", 6, size=24)
    with pytest.raises(UserError, match="24 x 24, the model takes 16 x 16"):
        surprise(run, data=path, split="all", out=tmp_path)
    assert surprise(run, data=path, split="all", kinds="freeze", resize=True, out=tmp_path)["resize"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give one"),
        (["--data", "x.h5", "--watch", "v.mp4"], "give one"),
        (["--watch", "v.mp4"], "go together"),
        (["--data", "x.h5", "--actions", "a.csv"], "go together"),
        (["--data", "DATA", "--depth", "0"], "--depth is 0"),
        (["--data", "DATA", "--max-clips", "0"], "--max_clips is 0"),
        (["--data", "missing.h5"], "missing.h5"),
        (["--data", "DATA", "--kinds", ","], "name kinds by commas"),
        (["--data", "DATA", "--kinds", "all,freeze"], "or all alone"),
        (["--watch", "v.mp4", "--actions", "a.csv", "--kinds", "freeze"], "--kinds is for clips that are judged"),
        (["--watch", "v.mp4", "--actions", "a.csv", "--depth", "2"], "--depth is for clips that are judged"),
        (["--data", "DATA", "--reference", "gone.h5"], "gone.h5"),
    ],
)
def test_slips_of_the_command_line_are_one_line_and_exit_code_2(run, data, tmp_path, capsys, flags, message):
    words = [str(data) if word == "DATA" else word for word in flags]
    assert main(["surprise", str(run), *words, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lewm: error: ") and message in line


def test_a_watched_folder_of_images_becomes_a_video_with_rare_steps_marked(run, many, tmp_path, capsys):
    source = open_source(many)
    frames = source.frames(0, np.arange(24))
    frames[12:] = source.frames(5, np.arange(12))
    for i, frame in enumerate(frames):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i}.png")
    np.save(tmp_path / "actions.npy", source.actions(0))
    flags = ["--watch", str(tmp_path / "frames"), "--actions", str(tmp_path / "actions.npy"), "--reference", str(many)]
    assert main(["surprise", str(run), *flags, "--out", str(tmp_path / "out")]) == 0
    assert "watch.mp4" in capsys.readouterr().out
    with av.open(str(tmp_path / "out" / "watch.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 24
    with (tmp_path / "out" / "surprise.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11 and all(0 < float(row["p_value"]) <= 1 for row in rows)

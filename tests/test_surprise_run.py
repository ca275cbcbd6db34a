import csv
import json

import av
import h5py
import numpy as np
import pytest
from conftest import write_walks
from PIL import Image

from lewm.cli import main
from lewm.datasets.schema import open_source
from lewm.datasets.split import episodes_of
from lewm.errors import UserError
from lewm.probes.ordinary import clips_of, find_reference
from lewm.probes.setting import prepare
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
    forms = [result, result["calibrated"], *result["depths"].values(), *result["calibrated_depths"].values()]
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


def test_the_order_of_clips_and_their_number_change_no_clip(run, data, tmp_path):
    few, more = (
        surprise(run, data=data, split="all", kinds="teleport", max_clips=n, out=tmp_path, reference="none")
        for n in (40, 80)
    )
    assert few["n"] == 40 and more["n"] > 40 and more["groups"] == few["groups"] == 40


def test_ordinary_steps_come_from_validation_episodes_that_are_not_measured(run, many, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(many)
    val = set(episodes_of("val", 0, source.keys).tolist())
    test, _ = find_reference(setting, "auto", source, "test")
    assert set(test.episodes.tolist()) == val
    half, _ = find_reference(setting, "auto", source, "val")
    result = surprise(run, data=many, split="val", kinds="teleport", max_clips=50, out=tmp_path)
    assert 0 < len(half.episodes) < len(val)
    assert result["groups"] == len(val) - len(half.episodes)  # the other half is measured
    none, why = find_reference(setting, "auto", source, "all")
    assert none is None and "all episodes are measured" in why
    none, why = find_reference(setting, "auto", None, "all")
    assert none is None and "not at hand" in why


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
    assert list(result["depths"]) == ["2", "3", "4"] and result["calibrated_depths"] == {}  # too few steps for depth 2
    with pytest.raises(UserError, match="has kinds of its own"):
        surprise(run, data=path, out=tmp_path, kinds="freeze")


def test_a_reference_that_is_too_small_is_refused_where_it_was_named(run, data, tmp_path):
    with pytest.raises(UserError, match="needs 200 ordinary steps"):
        surprise(run, data=data, kinds="teleport", split="train", out=tmp_path, reference=str(data))


def test_ordinary_clips_do_not_overlap_and_stay_inside_their_episodes(run, data, tmp_path):
    setting, source = prepare(run / "checkpoints" / "step=5.ckpt", tmp_path, 0), open_source(data)
    found, _ = find_reference(setting, str(data), None, "test")
    clips = clips_of(found, 4, 2)
    for episode in found.episodes:
        starts = [s for e, s in clips if e == episode]
        assert starts == list(range(0, 24 - 6, 6))
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
        (["--data", "DATA", "--max-clips", "0"], "--max-clips is 0"),
        (["--data", "missing.h5"], "missing.h5"),
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

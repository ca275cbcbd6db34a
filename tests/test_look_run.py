"""`lewm look` from end to end on a tiny model: its files, its numbers, the report, and what it refuses."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from conftest import write_walks
from PIL import Image

from lewm import checkpoint as checkpoints
from lewm.cli import main
from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes import decoder as module
from lewm.probes.decoder import load_decoder
from lewm.probes.look_run import look
from lewm.probes.report import report
from lewm.probes.results import flat

FIGURES = ["attention", "decoded", "map", "rollouts", "spectrum", "straightness"]
HOW = {"max_frames": 120, "updates": 30, "films": 2}


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("look") / "tiny"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("report", "cache"))
    (folder / "metrics.csv").write_text("step,val/straightness\n10,-0.2\n20,0.1\n")
    return folder


@pytest.fixture(scope="module")
def looked(run, walks):
    return look(run, data=walks, **HOW)


def test_everything_is_written_and_the_result_is_what_the_file_holds(looked, run):
    out = run / "report" / "look"
    assert json.loads((out / "result.json").read_text()) == looked
    assert set(looked) >= {"command", "checkpoint", "data", "split", "seed", "versions", "decoder", "rollouts", "map"}
    assert looked["figures"] == FIGURES
    for name in FIGURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (out / "videos").iterdir()) == looked["videos"] == ["rollout_0.gif", "rollout_1.gif"]
    assert not list(out.glob(".*"))
    with (out / "result.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(list(flat(looked)))


def test_numbers_have_their_controls_and_intervals(looked):
    scores = looked["decoder"]
    assert set(scores["controls"]) == {"untrained", "nearest", "mean_image"}
    for found in (scores, *scores["controls"].values()):
        low, high = found["mse_ci95"]
        assert low <= found["mse"] <= high and found["r2"] <= 1
    assert scores["controls"]["mean_image"]["r2"] == pytest.approx(0, abs=1e-9)
    assert scores["r2"] >= -0.01  # at worst it stays at the mean frame
    assert [row["h"] for row in looked["rollouts"]] == list(range(1, len(looked["rollouts"]) + 1))
    assert all(set(row) >= {"imagined_mse", "encoded_mse_ci95", "copy_last_mse"} for row in looked["rollouts"])
    assert set(looked["straightness"]) == {"embedding", "imagined", "untrained", "pixels", "windows", "frames"}
    assert 1 <= looked["latent"]["effective_rank"] <= 12 and looked["latent"]["untrained"]["dim"] == 12
    (layer,) = looked["attention"]
    assert layer["layer"] == 1 and set(layer["at"]["agent_position"]) == {"trained", "untrained"}


def test_train_val_and_test_frames_are_of_different_episodes(looked, walks):
    parts = looked["decoder"]["parts"]
    assert sum(parts[name]["episodes"] for name in ("train", "val", "test")) <= len(open_source(walks).keys)
    assert looked["decoder"]["n"] == parts["test"]["frames"]


def test_the_same_seed_gives_the_same_result_and_pictures_from_the_cache_or_not(looked, run, walks, tmp_path):
    again = look(run, data=walks, out=tmp_path, cache=False, **HOW)
    for name in ("decoder", "rollouts", "map", "latent", "straightness", "attention"):
        assert again[name] == looked[name], name
    for name in (*(f"{figure}.png" for figure in FIGURES), "videos/rollout_0.gif", "decoder.safetensors"):
        assert (tmp_path / name).read_bytes() == (run / "report" / "look" / name).read_bytes(), name


def test_the_saved_decoder_shows_embeddings_of_the_model(looked, run, walks):
    decoder = load_decoder(run / "report" / "look" / "decoder.safetensors")
    assert decoder.frame == open_source(walks).frame_shape
    assert decoder.frames(np.zeros((2, 12))).shape == (2, 16, 16, 3)


def test_no_gradient_reaches_a_model_even_if_it_is_not_frozen(run, walks, tmp_path, monkeypatch):
    model = checkpoints.load(run).requires_grad_(True)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    monkeypatch.setattr(checkpoints, "load", lambda path: model)
    look(run, data=walks, out=tmp_path, cache=False, **HOW | {"updates": 3})
    assert all(p.grad is None for p in model.parameters())
    assert all(x.equal(before[name]) for name, x in model.state_dict().items())


def test_the_report_shows_it_and_asks_no_network(looked, run):
    page = report(run).read_text()
    assert "Latent space" in page and page.count("data:image/gif;base64,") == 2
    for text in (
        "decoder for the untrained network",
        "nearest training frame",
        "mean cosine [95 %]",
        "agent_position, trained",
    ):
        assert text in page
    for figure in FIGURES:
        assert f'alt="{figure}"' in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)|@import|url\(", page) and len(page) < 10_000_000


def test_a_film_shows_context_and_then_each_block(looked, run):
    with Image.open(run / "report" / "look" / "videos" / "rollout_0.gif") as film:
        assert film.n_frames >= 2 + len(looked["rollouts"]) - 1
        assert film.size[0] > 4 * 160


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_frames", "10"], "--max_frames is 10; it must be at least 50"),
        (["--updates", "0"], "--updates is 0; it must be at least 1"),
        (["--targets", "mars"], "no shipped targets 'mars'"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(run, walks, tmp_path, capsys, flags, message):
    assert main(["look", str(run), "--data", str(walks), "--out", str(tmp_path / "o"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "o" / "result.json").exists()


def test_too_few_episodes_and_a_part_that_is_unknown_are_refused(run, tmp_path):
    path = write_walks(tmp_path / "few.h5", 2)
    with pytest.raises(UserError, match="is empty"):
        look(run, data=path, out=tmp_path / "o")
    with pytest.raises(UserError, match="--split is 'all'"):
        look(run, data=path, out=tmp_path / "o", split="all")


def test_short_episodes_have_no_rollouts_and_the_result_and_the_page_say_why(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKS", 1)
    path = write_walks(tmp_path / "short.h5", 40, length=4)  # two frames at frameskip 2; a context takes two
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report", "cache"))
    found = look(copy, data=path, **HOW)
    assert "rollouts" not in found and "no open-loop window fits" in found["rollouts_note"]
    assert "straightness" not in found["figures"]
    assert "no open-loop window fits" in report(copy).read_text()

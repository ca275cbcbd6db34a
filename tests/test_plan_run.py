"""`lewm plan` from the command line: what it writes, and what it refuses in one line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from shutil import copytree

import h5py
import numpy as np
import pytest
import torch
from conftest import TINY

from lewm.checkpoint import save
from lewm.cli import main
from lewm.clip import Interface
from lewm.datasets.schema import open_source
from lewm.envs.rules import rules_of
from lewm.model.world_model import WorldModel
from lewm.plan.manifest import Pair, read
from lewm.plan.space import ActionSpace
from lewm.probes import plan_scores as scores
from lewm.probes.plan_figures import along
from lewm.probes.plan_pairs import marks_of
from lewm.probes.plan_run import cost_of, solver_of

SIDE, EPISODES = 16, 40
SHORT = ["--offset", "10", "--budget", "20"]
QUICK = ["--samples", "8", "--iterations", "2", "--horizon", "2"]
COMMON = {"command", "checkpoint", "data", "split", "seed", "versions"}
PICTURES = {"costs", "distances", "drift", "episodes"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Wanderers in Two-Room."""
    folder = tmp_path_factory.mktemp("plan") / "data"
    argv = ["collect", "two_room", "--out", str(folder), "--episodes", str(EPISODES), "--image-size", str(SIDE)]
    assert main([*argv, "--policy", "wander"]) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """A run whose tiny model says it was trained on these data."""
    return write_run(tmp_path_factory.mktemp("run") / "tiny", data)


def write_run(folder, data, **changes):
    about = {
        "image_size": SIDE,
        "frameskip": 5,
        "history": 2,
        "action_mean": (0.0, 0.0),
        "action_std": (0.6, 0.6),
        "fingerprint": open_source(data).fingerprint(),
    }
    torch.manual_seed(0)
    model = WorldModel(Interface(**(about | changes)), **TINY)
    for block in model.predictor.transformer.layers:  # AdaLN-zero would hide the actions
        torch.nn.init.normal_(block.adaLN_modulation[1].weight, std=0.3)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"data: {{path: {data}}}\n")
    save(model.eval(), folder / "checkpoints" / "step=5.ckpt")
    return folder


def plan(checkpoint, data, out, *more):
    argv = ["plan", str(checkpoint), "--env", "two_room", "--data", str(data), "--out", str(out), *SHORT]
    return main([*argv, *([] if "--solver" in more else QUICK), *more])


def rows(out):
    with (out / "pairs.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_result_has_every_number_and_a_frozen_manifest_gives_the_same_pairs_and_outcomes(
    checkpoint, data, tmp_path, capsys
):
    one, two, manifest = tmp_path / "one", tmp_path / "two", tmp_path / "m.json"
    more = ["--split", "all", "--seeds", "2"]
    assert plan(checkpoint, data, one, "--pairs", "7", "--write-manifest", str(manifest), *more) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the rule of strict is not met" in said and "7 pairs instead of 100" in said
    result = json.loads((one / "result.json").read_text())
    assert set(result) >= COMMON | {"env", "protocol", "success", "random", "difference", "solved_at_start", "excluded"}
    assert {path.stem for path in one.glob("*.png")} == PICTURES
    for name in ("success", "random"):
        assert result[name]["n"] == 7 and len(result[name]["ci95"]) == 2 and len(result[name]["per_seed"]) == 2
    assert result["plan_ms"]["median"] > 0 and result["plan_ms"]["p95"] >= result["plan_ms"]["median"]
    assert result["search_ms"]["median"] >= result["plan_ms"]["median"] and result["encode_ms"]["median"] > 0
    assert "ms a plan and episode" in said and "episodes together; a whole search" in said
    assert result["manifest"]["as_drawn"] is True and result["manifest"]["seed"] == 0
    assert result["seeds"] == [0, 1] and result["rule_met"] is False and result["held_out"] is False
    assert result["solver"]["name"] == "cem" and result["solver"]["samples"] == 8 and result["execute"] == 2
    assert result["excluded"]["one_room"] > 0 and result["solved_at_start"]["pairs"] == 0
    assert [row["block"] for row in result["drift"]] == [1, 2] and len(result["costs"]) == 2
    found = rows(one)
    assert len(found) == 14 and len({row["episode"] for row in found}) == 7
    assert np.mean([int(row["solved"]) for row in found]) == pytest.approx(result["success"]["rate"])
    assert np.mean([int(row["random_solved"]) for row in found]) == pytest.approx(result["random"]["rate"])
    # the same pairs again, one at a time
    assert plan(checkpoint, data, two, "--manifest", str(manifest), "--batch", "1", "--seeds", "2") == 0
    again = json.loads((two / "result.json").read_text())
    assert {**again["manifest"], "path": ""} == {**result["manifest"], "path": ""} and again["split"] == "all"
    for a, b in zip(found, rows(two), strict=True):
        assert {n: v for n, v in a.items() if "distance" not in n} == {
            n: v for n, v in b.items() if "distance" not in n
        }
        assert float(a["least_distance"]) == pytest.approx(float(b["least_distance"]), abs=0.05)
    assert again["plan_ms"]["together"] == 1 and result["plan_ms"]["together"] > 1


def test_settings_reach_the_solver_and_the_cost_and_what_is_missing_is_said(checkpoint, data, tmp_path, capsys):
    few = ["--split", "all", "--seeds", "1", "--iterations", "2", "--horizon", "2"]
    mine = ["--solver", "icem", "--samples", "8", "--std", "0.5", "--exponent", "1", "--pairs", "500"]
    order = ["--cost", "order", "--goals", "2", "--action_penalty", "0.5"]
    assert plan(checkpoint, data, tmp_path / "a", *few, *mine, *order) == 0
    said = " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["solver"]["std"], result["solver"]["exponent"]) == (0.5, 1)
    assert (result["objective"], result["goals"], result["action_penalty"]) == ("order", 2, 0.5)
    missing = f"{result['n']} pairs instead of 500"
    assert missing in result["rule_missed"] and f"notice: {missing}" in said
    assert "2 goal frames instead of one" in result["rule_missed"]
    gradient = solver_of("gradient", {"lr": 0.2, "starts": 2, "samples": None})
    assert {"lr": 0.2, "starts": 2}.items() <= vars(gradient).items()


def test_the_plain_way_plans_the_same_and_each_way_is_noted(checkpoint, data, tmp_path, monkeypatch):
    ways, kept, take = [], [], WorldModel.take_plain_paths
    monkeypatch.setattr(WorldModel, "take_plain_paths", lambda model: ways.append(take(model)))
    monkeypatch.setattr("lewm.probes.plan_run.keep_freed", lambda: kept.append("of the fast way"))
    few, results = ["--split", "all", "--pairs", "6", "--seeds", "1", "--films", "0", "--horizon", "4"], []
    for plain in ("false", "true"):
        assert plan(checkpoint, data, tmp_path / plain, *few, "--plain", plain) == 0
        results.append(json.loads((tmp_path / plain / "result.json").read_text()))
    assert [result["plain"] for result in results] == [False, True] and len(ways) == 1
    assert kept == ["of the fast way"]
    fast, plain = ([row["least_distance"] for row in rows(tmp_path / name)] for name in ("false", "true"))
    assert [float(x) for x in fast] == pytest.approx([float(x) for x in plain], abs=0.05)


def test_mixed_precision_plans_nearly_the_same_and_says_so_and_where_it_is_emulated(
    checkpoint, data, tmp_path, monkeypatch, capsys
):
    few = ["--split", "all", "--pairs", "6", "--seeds", "1", "--films", "0", "--horizon", "4", "--iterations", "3"]
    for native, name in ((False, "32-true"), (True, "bf16-mixed"), (False, "bf16-mixed")):
        monkeypatch.setattr("lewm.precision.cpu_computes_bf16", lambda native=native: native)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert plan(checkpoint, data, tmp_path / name, *few, "--precision", name) == 0
        told = "bf16-mixed is emulated" in capsys.readouterr().out
        assert told == (name == "bf16-mixed" and not native)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("32-true", "bf16-mixed")]
    assert [result["precision"] for result in results] == ["32-true", "bf16-mixed"]
    full, mixed = ([row["best_median"] for row in result["costs"]] for result in results)
    assert mixed != full and mixed == pytest.approx(full, rel=0.05, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_compiled_model_plans_the_same_with_few_graphs(checkpoint, data, tmp_path, precision):
    # In processes of their own: the shape checks of tests cannot be compiled. Pairs are planned by two, then by one.
    few = ["--split=all", "--pairs=3", "--batch=2", "--seeds=1", "--films=0", "--horizon=4", "--iterations=3", *SHORT]
    command = [sys.executable, "-m", "lewm", "plan", str(checkpoint), "--env=two_room", f"--data={data}", *few]
    for name in ("false", "true"):
        ask = [*command, f"--out={tmp_path / name}", f"--compile={name}", f"--precision={precision}"]
        done = subprocess.run(ask, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "recompile_limit" not in done.stderr
    first = [json.loads((tmp_path / name / "result.json").read_text())["costs"][0] for name in ("false", "true")]
    assert first[1]["mean_median"] == pytest.approx(first[0]["mean_median"], rel=1e-2)  # of the same candidates
    if precision == "32-true":  # in bfloat16 fused operations round less, and searches part ways
        plain, compiled = ([row["least_distance"] for row in rows(tmp_path / name)] for name in ("false", "true"))
        assert [float(x) for x in compiled] == pytest.approx([float(x) for x in plain], abs=0.05)


def test_the_action_penalty_draws_actions_to_their_mean():
    space = ActionSpace([-1.0], [1.0], mean=[0.5], std=[0.25])
    predicted, goal = torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 3)
    actions = torch.full((1, 1, 2, 5, 1), 0.75)  # u = 1
    assert cost_of("last", 0.0, space)(predicted, goal, actions).item() == 3
    assert cost_of("last", 0.5, space)(predicted, goal, actions).item() == 3.5


def test_as_many_films_as_asked_for_are_written_and_the_report_finds_all_protocols(checkpoint, data, tmp_path, capsys):
    run = tmp_path / "run"
    copytree(checkpoint, run)
    more = ["--env", "two_room", "--data", str(data), *SHORT, *QUICK, "--pairs", "3", "--seeds", "1", "--batch", "3"]
    for protocol, films in (("strict", 2), ("moderate", 0)):
        assert main(["plan", str(run), *more, "--protocol", protocol, "--films", str(films)]) == 0
        folder = run / "report" / "plan" / protocol
        result = json.loads((folder / "result.json").read_text())
        keys = {f"{row['episode']}_{row['start']}.gif" for row in rows(folder)[:films]}
        assert set(result["videos"]) == keys and {path.name for path in (folder / "videos").iterdir()} == keys
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "report.html").read_text()
    assert page.count("data:image/gif;base64,") == 2 and "<td>strict</td>" in page and "<td>moderate</td>" in page
    assert main(["plan", str(run), *more, "--films", "-1"]) == 2
    assert "--films" in capsys.readouterr().err


def test_data_collected_with_the_same_seed_are_not_held_out_whatever_their_fingerprint(checkpoint, data, tmp_path):
    common = ["--policy", "wander", "--image-size", str(SIDE), "--episodes", "12"]
    for seed, apart in (("0", False), ("77", True)):
        other = tmp_path / f"seed{seed}"
        assert main(["collect", "two_room", "--out", str(other), "--seed", seed, *common]) == 0
        assert open_source(other).fingerprint() != open_source(data).fingerprint()
        out = tmp_path / f"out{seed}"
        assert plan(checkpoint, other, out, "--split", "all", "--seeds", "1", "--solver", "random") == 0
        result = json.loads((out / "result.json").read_text())
        assert result["held_out"] is apart, result["held_out_how"]


def bad_data(path, data, change):
    """The data as a file, with its columns changed."""
    source = open_source(data)
    every = range(len(source.lengths))
    columns = {
        "pixels": np.concatenate([source.frames(e, np.arange(source.lengths[e])) for e in every]),
        "action": np.concatenate([source.actions(e) for e in every]),
        "state": np.concatenate([source.column("state", e) for e in every]),
        "ep_len": source.lengths.astype(np.int32),
        "ep_offset": (np.cumsum(source.lengths) - source.lengths).astype(np.int64),
    }
    with h5py.File(path, "w") as file:
        for name, values in change(columns).items():
            file[name] = values
    return path


def test_bad_input_is_refused_in_one_line(checkpoint, data, tmp_path, capsys):
    manifest, out = tmp_path / "m.json", tmp_path / "out"
    few = ["--split", "all", "--pairs", "4", "--seeds", "1", "--solver", "random"]
    assert plan(checkpoint, data, out, *few, "--write-manifest", str(manifest)) == 0
    damaged = tmp_path / "damaged.json"
    damaged.write_text(manifest.read_text().replace('"start": ', '"start": 1'))
    three = write_run(tmp_path / "three", data, action_mean=(0.0,) * 3, action_std=(1.0,) * 3)
    wide = write_run(tmp_path / "wide", data, image_size=32)
    inverted = bad_data(tmp_path / "inverted.h5", data, lambda c: c | {"pixels": 255 - c["pixels"]})
    stateless = bad_data(tmp_path / "stateless.h5", data, lambda c: {n: v for n, v in c.items() if n != "state"})
    other_state = bad_data(tmp_path / "other.h5", data, lambda c: c | {"state": np.tile(c["state"], 3)})
    capsys.readouterr()
    every = ["--split", "all"]
    for arguments, match in (
        ((checkpoint, data, out, "--env", "push_t"), "that of push_t has 7 numbers"),
        ((checkpoint, data, out, "--env", "two_rooms"), "no world 'two_rooms'"),
        ((three, data, out), "actions of"),
        ((wide, data, out), "the model takes 32 x 32"),
        ((checkpoint, inverted, out, *every), "grey levels"),
        ((checkpoint, stateless, out, *every), "no column 'state'"),
        ((checkpoint, other_state, out, *every), "has 2 numbers"),
        ((checkpoint, inverted, out, "--manifest", manifest), "manifest for other data"),
        ((checkpoint, data, out, "--manifest", manifest, "--protocol", "moderate"), "for protocol strict"),
        ((checkpoint, data, out, "--manifest", manifest, "--offset", "11"), "10 steps ahead"),
        ((checkpoint, data, out, "--manifest", manifest, "--split", "test"), "drawn from split all"),
        ((checkpoint, data, out, "--manifest", manifest, "--pairs", "9999"), "ask for fewer"),
        ((checkpoint, data, out, "--manifest", damaged), "checksum"),
        ((checkpoint, data, out, "--manifest", tmp_path / "none.json"), "no such manifest"),
        ((checkpoint, data, out, "--offset", "500"), "too short"),
        ((checkpoint, data, out, "--solver", "oracle"), "no solver 'oracle'"),
        ((checkpoint, data, out, "--cost", "least"), "no cost 'least'"),
        ((checkpoint, data, out, "--cost", "order"), "one goal frame is --cost last"),
        ((checkpoint, data, out, "--cost", "order", "--goals", "3"), "a horizon of as many blocks, not 2"),
        ((checkpoint, data, out, *every, "--goals", "3"), "reach back to the start"),
        ((checkpoint, data, out, "--action_penalty", "-1"), "--action_penalty is -1"),
        ((checkpoint, data, out, "--lr", "0.1"), "solver cem has no setting 'lr'"),
        (
            (checkpoint, data, out, "--solver", "gradient", "--exponent", "2"),
            "solver gradient has no setting 'exponent'",
        ),
        ((checkpoint, data, out, "--std", "0"), "std must be above 0"),
        ((checkpoint, data, out, "--protocol", "lax"), "lax"),
        ((checkpoint, data, out, "--budget", "7"), "no multiple of the model's frameskip"),
        ((checkpoint, data, out, "--execute", "9"), "can be executed, not 9"),
        ((checkpoint, data, out, "--pairs", "0"), "--pairs is 0"),
        ((tmp_path / "no.ckpt", data, out), "no such checkpoint"),
        ((checkpoint, tmp_path / "no.h5", out), "no such file"),
    ):
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        assert plan(*arguments[:3], *map(str, arguments[3:])) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("lewm: error: ") and match in error, error
        assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_hand_made_manifest_cannot_bring_in_pairs_that_ask_for_nothing(checkpoint, data, tmp_path, capsys):
    path, out = tmp_path / "m.json", tmp_path / "out"
    few = ["--split", "all", "--pairs", "4", "--seeds", "1", "--solver", "random"]
    assert plan(checkpoint, data, out, *few, "--write-manifest", str(path)) == 0
    found, source = read(path), open_source(data)
    number = source.keys.index(found.pairs[0].episode)
    states = source.column("state", number)
    same = (states[:-10, 0] < 112) == (states[10:, 0] < 112)
    row = int(np.flatnonzero(same)[0])
    pairs = (Pair(found.pairs[0].episode, row, row + 10), *found.pairs[1:])
    marks = tuple(map(marks_of(source, rules_of("two_room", "strict")), pairs))
    replace(found, pairs=pairs, marks=marks).write(path)
    capsys.readouterr()
    assert plan(checkpoint, data, out, "--manifest", str(path)) == 2
    assert "which protocol strict excludes" in capsys.readouterr().err


def test_the_paper_keeps_every_pair_and_needs_no_held_out_episodes(checkpoint, data, tmp_path):
    out = tmp_path / "out"
    more = ["--protocol", "paper", "--pairs", "40", "--solver", "random", "--seeds", "1"]
    assert plan(checkpoint, data, out, *more) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["excluded"] == {} and result["split"] == "all" and result["solved_at_start"]["pairs"] > 0
    solved_first = sum(row["step"] == "0" for row in rows(out))
    assert solved_first == result["solved_at_start"]["pairs"]
    assert result["rule_missed"] == ["offset 10 instead of 100", "budget 20 instead of 150", "40 pairs instead of 50"]
    assert result["plan_ms"]["plans"] > 0 and result["success"]["rate"] > 0


def test_rollouts_that_have_arrived_keep_their_last_distance_in_the_curve():
    found = along(np.array([4.0, 2.0, 9.0, 8.0, 7.0]), np.array([1, 2, 1, 2, 3]))
    assert found[1].tolist() == [6.5, 5.0, 4.5]


def test_intervals_are_over_pairs_and_never_certain():
    labels = np.arange(40)
    sure = np.ones((3, 40), bool)
    assert scores.difference(sure, ~sure, labels)["ci95"][0] < 0.9
    assert scores.success(sure, labels)["ci95"][0] < 1
    half = np.tile(np.arange(40) % 2 == 0, (3, 1))
    wide, narrow = (scores.success(half[:n], labels)["ci95"] for n in (1, 3))
    # three seeds that agree tell no more about the pairs than one
    assert np.ptp(narrow) == pytest.approx(np.ptp(wide), rel=0.15)
    same = scores.difference(half, half, labels)
    assert same["mean"] == 0 and same["ci95"][0] < 0 < same["ci95"][1]

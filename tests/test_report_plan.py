"""The planning part of a report: every protocol in one table, pictures of the strictest, films inside the page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from lewm.plan.evaluate import Rollout
from lewm.probes.plan_shown import Shown
from lewm.probes.plan_videos import composed, write_videos
from lewm.probes.report import report

ARRIVED = 4


def rate(value):
    return {"rate": value, "ci95": [value - 0.05, value + 0.05], "n": 30, "per_seed": [value]}


def plan_result(protocol, success=0.6, **changes):
    return {
        "command": f"lewm plan RUN --protocol {protocol}",
        "protocol": protocol,
        "n": 30,
        "seeds": [0],
        "success": rate(success),
        "random": rate(0.1),
        "difference": {"mean": 0.5, "ci95": [0.4, 0.6]},
        "excluded": {"one_room": 7, "solved_at_start": 4},
        "drawn_from": {"candidates": 50},
        "solved_at_start": {"pairs": 0},
        "plan_ms": {"median": 12.34, "p95": 20.0},
        "solver": {"name": "cem", "samples": 300, "iterations": 30, "horizon": 5},
        "execute": 5,
        "goals": 1,
        "action_penalty": 0.0,
        "budget": 50,
        "offset": 25,
        "held_out_how": "30 of 30 episodes are of the model's own test split",
        "rule_missed": [],
        "promised": {"predicted": 0.5, "realised": 1.5, "n": 40},
    } | changes


def write(run, result):
    folder = run / "report" / "plan" / result["protocol"]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def visible(page):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def test_all_protocols_stand_in_one_table_the_strictest_first_whatever_was_run_first(tmp_path):
    for protocol, success in (("paper", 0.9), ("moderate", 0.7), ("strict", 0.6)):
        write(tmp_path, plan_result(protocol, success))
    text = visible(report(tmp_path).read_text())
    places = [
        text.index(f"{name} {100 * rate:.1f} %") for name, rate in (("strict", 0.6), ("moderate", 0.7), ("paper", 0.9))
    ]
    assert places == sorted(places)
    assert (
        "10.0 % [5.0, 15.0]" in text
        and "+50.0 % [+40.0, +60.0]" in text
        and "11 of 50" in text
        and "7 one room, 4 solved at start" in text
        and "12.3" in text
    )
    assert "goals reached by planning 60.0 % [55.0, 65.0]" in text and "random actions 10.0 %" in text
    assert "predicted to be 0.500 and came out as 1.50" in text
    for protocol in ("strict", "moderate", "paper"):
        assert f"lewm plan RUN --protocol {protocol}" in text


def test_a_rule_that_was_not_met_and_episodes_that_were_seen_in_training_are_said(tmp_path):
    missed = ["30 pairs instead of 100", "planner seeds 1 instead of 3"]
    write(tmp_path, plan_result("moderate", rule_missed=missed, held_out_how="7 of 30 episodes were seen"))
    text = visible(report(tmp_path).read_text())
    assert "the rule is not met: 30 pairs instead of 100; planner seeds 1 instead of 3" in text
    assert "7 of 30 episodes were seen" in text


def test_without_a_result_the_command_is_named(tmp_path):
    text = visible(report(tmp_path).read_text())
    assert f"lewm plan {tmp_path} --env WORLD --data DATA" in text


@pytest.fixture
def shown():
    """Three blocks of two steps; frame t is grey level 10 t, and the goal is reached after step 4."""
    frames = [np.full((4, 6, 3), 10 * t, np.uint8) for t in range(7)]
    imagined = np.stack([np.full((4, 6, 3), 100 + i, np.uint8) for i in range(3)])
    rollout = Rollout("a/b:3", 0, [], solved_at=ARRIVED, frames=frames, imagined=[np.zeros(2)] * 3)
    return Shown(rollout, imagined, np.full((4, 6, 3), 200, np.uint8), np.arange(7, 0, -1.0))


def test_a_film_shows_every_step_with_what_was_imagined_of_the_block_in_progress(shown):
    assert shown.frameskip == 2 and [int(f[0, 0, 0]) for f in shown.after_blocks] == [0, 20, 40, 60]
    seen = []
    for step in range(7):
        picture = composed(shown, step)
        middle = picture.shape[0] // 2
        quarters = [picture[middle, (2 * i + 1) * picture.shape[1] // 8] for i in range(4)]
        assert all((colour == colour[0]).all() for colour in quarters)
        seen.append([int(colour[0]) for colour in quarters])
    assert seen == [[0, 10 * t, 100 + (0, 0, 0, 1, 1, 2, 2)[t], 200] for t in range(7)]


def test_a_film_turns_to_solved_at_the_step_of_arrival_and_not_before(shown):
    def green(step):
        foot = composed(shown, step)[-20:].astype(int)
        return bool((foot[..., 1] - foot[..., 0] > 60).any())

    assert [green(step) for step in range(7)] == [False] * ARRIVED + [True] * (7 - ARRIVED)


def test_films_are_files_that_play_and_lie_inside_the_page(shown, tmp_path):
    folder = write(tmp_path, plan_result("strict"))
    names = write_videos([shown], folder)
    assert names == ["a_b_3.gif"]
    with Image.open(folder / "videos" / names[0]) as film:
        assert film.n_frames >= 7 and film.info["loop"] == 0
    (folder / "result.json").write_text(json.dumps(plan_result("strict", videos=names)))
    assert report(tmp_path).read_text().count("data:image/gif;base64,") == 1

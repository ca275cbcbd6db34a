"""Collected episodes and triples."""

import h5py
import numpy as np
import pytest

from lewm.cli import main
from lewm.datasets.collect import run_episode
from lewm.datasets.schema import open_source
from lewm.envs import make_policy, make_world
from lewm.errors import UserError


def collect(out, *flags: str) -> None:
    argv = ["collect", "two_room", "--out", str(out), "--episodes", "4", "--image-size", "16", "--seed", "3", *flags]
    assert main(argv) == 0


def test_the_bytes_depend_on_the_seed_and_not_on_the_number_of_workers(tmp_path):
    collect(tmp_path / "a")
    collect(tmp_path / "b", "--workers", "2")
    collect(tmp_path / "c", "--seed", "4")
    tars = [(tmp_path / name / "shard-000000.tar").read_bytes() for name in "abc"]
    assert tars[0] == tars[1]
    assert tars[0] != tars[2]


def test_action_t_leads_from_frame_t_to_the_next_and_the_last_is_nan(tmp_path):
    collect(tmp_path / "a")
    source = open_source(tmp_path / "a")
    world = make_world("two_room", image_size=16)
    for e in range(4):
        state, actions = source.column("state", e), source.actions(e)
        assert np.isnan(actions[-1]).all()
        for t in range(len(state) - 1):
            world.reset(options={"state": state[t], "goal_state": source.column("goal_state", e)[0]})
            frame, *_ = world.step(actions[t])
            assert (world.state == state[t + 1]).all()
            assert (frame == source.frames(e, np.array([t + 1]))[0]).all()


def test_an_episode_ends_where_the_world_says_so():
    world, policy = make_world("two_room", image_size=16), make_policy("two_room", "expert")
    ends = [run_episode(world, policy, seed)[1] for seed in range(6)]
    assert all(c["terminated"][-1] or c["truncated"][-1] for c in ends)
    assert not any((c["terminated"] | c["truncated"])[:-1].any() for c in ends)


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "voe.h5"
    argv = ["collect", "two_room", "--out", str(path), "--triples", "6", "--image-size", "32", "--policy", "wander"]
    assert main(argv) == 0
    with h5py.File(path) as file:
        return {name: item[()] for name, item in file.items()}


def test_clips_of_a_triple_agree_before_the_event_and_differ_from_it_on(triples):
    for pixels, states, event in zip(triples["pixels"], triples["state"], triples["perturb_step"], strict=True):
        for kind in (1, 2):
            assert (pixels[kind, :event] == pixels[0, :event]).all()
            assert (pixels[kind, event] != pixels[0, event]).any()
        assert (states[1] == states[0]).all()  # paint moves nothing
        assert (states[2, :event] == states[0, :event]).all()
        assert np.linalg.norm(states[2, event] - states[0, event]) >= 40


def test_all_three_clips_obey_the_same_actions(triples):
    from lewm.envs.two_room import next_state

    assert (triples["action"] == triples["action"][:, :1]).all()
    for states, actions, event in zip(triples["state"], triples["action"], triples["perturb_step"], strict=True):
        for kind in range(3):
            for t in range(39):
                expected = next_state(states[kind, t], actions[kind, t])
                if (kind, t + 1) != (2, event):
                    assert (states[kind, t + 1] == expected).all()


def test_new_colours_are_far_from_every_other(triples):
    others = np.array([[255, 0, 0], [0, 0, 0], [255, 255, 255]])
    for colour in triples["visual_color"].astype(float):
        assert np.linalg.norm(others - colour, axis=1).min() >= 150


def test_an_existing_file_is_never_overwritten(tmp_path):
    from lewm.datasets.triples import collect_triples

    (tmp_path / "v.h5").write_text("kept")
    with pytest.raises(UserError, match="exists"):
        collect_triples(
            make_world("two_room", image_size=32), make_policy("two_room", "wander"), tmp_path / "v.h5", triples=1
        )
    assert (tmp_path / "v.h5").read_text() == "kept"

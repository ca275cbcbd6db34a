"""Collected episodes."""

import numpy as np
import pytest

from lewm.cli import main
from lewm.datasets.collect import collect as run
from lewm.datasets.collect import run_episode
from lewm.datasets.schema import open_source
from lewm.envs import make_policy, make_world
from lewm.envs.two_room import TwoRoom


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


@pytest.mark.parametrize("flags", [(), ("--triples", "1"), ("--triples", "1", "--kinds", "moved")])
def test_every_world_is_closed(flags, tmp_path, monkeypatch):
    made, closed = [], []
    make = TwoRoom.__init__
    monkeypatch.setattr(TwoRoom, "__init__", lambda self, **settings: (made.append(self), make(self, **settings))[1])
    monkeypatch.setattr(TwoRoom, "close", lambda self: closed.append(self))
    collect(tmp_path / ("b.h5" if flags else "a"), *flags)
    assert made and set(map(id, made)) == set(map(id, closed))


def test_a_world_without_a_close_is_collected_in(tmp_path):
    class Bare:
        def __init__(self):
            world = make_world("two_room", image_size=16)
            self.reset, self.step, self.action_space = world.reset, world.step, world.action_space

    run(Bare, lambda: make_policy("two_room", "random"), tmp_path / "a", episodes=1)
    assert open_source(tmp_path / "a").lengths.min() > 1

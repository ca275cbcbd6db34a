"""What pairs may not be: of episodes the model knows, of states that are not their frames', or picked by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from lewm.datasets.convert import convert
from lewm.datasets.schema import open_source
from lewm.envs.restored import restored_world
from lewm.envs.rules import rules_of
from lewm.errors import UserError
from lewm.plan.manifest import Pair
from lewm.plan.protocols import PROTOCOLS
from lewm.probes import plan_pairs
from lewm.probes.plan_pairs import as_drawn, check_look, check_steps, draw_pairs, find_pairs, held_out, tasks_of

SIDE, ROWS = 32, 60
RULE = PROTOCOLS["moderate"].changed(offset=10, budget=20)
RULES = rules_of("two_room", "moderate")


def write(path, *, seed, episodes=30, cut=slice(None), shift=0, image=lambda x: x):
    """Wanderers of Two-Room in a file; the rows of `cut` alone, frames changed by `image`, states `shift` rows late."""
    world, rng = restored_world("two_room", image_size=SIDE), np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {"pixels": [], "action": [], "state": []}
    for _ in range(episodes):
        state = np.float32(rng.uniform((92, 36), (132, 62)))
        frame, actions = world.restore(state), np.float32(rng.uniform(-1, 1, (ROWS, 2)))
        rows: dict[str, list[Any]] = {"pixels": [], "state": []}
        for action in np.repeat(actions[::6], 6, axis=0) * 0.7 + 0.3 * actions:
            rows["pixels"].append(image(frame))
            rows["state"].append(state)
            frame, state = world.step(action)
        columns["action"].append((np.repeat(actions[::6], 6, axis=0) * 0.7 + 0.3 * actions)[cut])
        columns["pixels"].append(np.stack(rows["pixels"])[cut])
        columns["state"].append(np.roll(np.stack(rows["state"]), shift, axis=0)[cut])
    lengths = np.array([len(x) for x in columns["action"]], np.int32)
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            file[name] = np.concatenate(parts)
        file["ep_len"], file["ep_offset"] = lengths, (np.cumsum(lengths) - lengths).astype(np.int64)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def data(folder):
    return write(folder / "data.h5", seed=0)


@pytest.fixture
def setting(data, monkeypatch) -> Any:
    """Of a model that was trained on the data."""
    monkeypatch.setattr(plan_pairs, "trained_on", lambda setting: open_source(data))
    interface = SimpleNamespace(fingerprint=open_source(data).fingerprint(), split_seed=0)
    return SimpleNamespace(model=SimpleNamespace(interface=interface), seed=0)


def drawn(source, num=100, split="all", seed=0):
    return draw_pairs(source, RULES, "two_room", RULE, split, num, seed=seed, split_seed=0)


def is_held_out(path, setting):
    source = open_source(path)
    return held_out(drawn(source), source, setting)


@pytest.mark.parametrize(("codec", "size"), [("jpeg", None), ("zstd", 16), ("jpeg", 24)])
def test_a_coded_or_resized_copy_of_training_episodes_is_not_held_out(codec, size, data, folder, setting):
    copy = folder / f"{codec}{size}"
    convert(data, copy, codec=codec, image_size=size)
    assert open_source(copy).fingerprint() != setting.model.interface.fingerprint
    found, how = is_held_out(copy, setting)
    assert found is False, how


@pytest.mark.parametrize("cut", [slice(0, 25), slice(33, None), slice(20, 40)])
def test_a_copy_that_was_cut_at_either_end_is_not_held_out(cut, folder, setting):
    found, how = is_held_out(write(folder / f"cut{cut.start}.h5", seed=0, cut=cut), setting)
    assert found is False, how


def test_data_collected_with_another_seed_are_held_out_and_without_the_training_data_it_cannot_be_told(
    folder, setting, monkeypatch
):
    other = write(folder / "other.h5", seed=1)
    assert is_held_out(other, setting)[0] is True
    monkeypatch.setattr(plan_pairs, "trained_on", lambda setting: None)
    assert is_held_out(other, setting)[0] is None


def test_the_models_own_test_split_is_held_out_unless_it_holds_copies(data, folder, setting):
    source = open_source(data)
    assert held_out(drawn(source, split="test"), source, setting)[0] is True
    assert held_out(drawn(source, split="all"), source, setting)[0] is False
    with h5py.File(data) as file:  # every episode twice, so that most of the test split's are training's as well
        columns = {name: np.concatenate([file[name]] * 2) for name in ("pixels", "action", "state", "ep_len")}
    lengths = columns["ep_len"]
    with h5py.File(folder / "twice.h5", "w") as file:
        for name, values in columns.items():
            file[name] = values
        file["ep_offset"] = (np.cumsum(lengths) - lengths).astype(np.int64)
    twice = open_source(folder / "twice.h5")
    setting.model.interface.fingerprint = twice.fingerprint()
    found, how = held_out(drawn(twice, split="test"), twice, setting)
    assert found is False and "own test split" in how


def look(path):
    source = open_source(path)
    return check_look(drawn(source), source, RULES, restored_world("two_room", image_size=SIDE), "two_room")


def test_recorded_frames_pass_and_so_do_those_of_another_renderer(data, folder):
    assert look(data) == 0
    rng = np.random.default_rng(0)

    def other(frame):
        return np.clip(frame + rng.integers(-6, 7, frame.shape) - 1.0, 0, 255).astype(np.uint8)

    assert 1 < look(write(folder / "other_look.h5", seed=2, image=other)) < 4


@pytest.mark.parametrize("shift", [1, -1, 3, 20])
def test_states_that_are_not_those_of_their_frames_are_refused(shift, folder):
    path = write(folder / f"shift{shift}.h5", seed=0, shift=shift)
    with pytest.raises(UserError, match=r"states of .* do not fit its frames: two_room shows \d of 8 frames") as caught:
        look(path)
    assert "\n" not in str(caught.value)


def test_permuted_states_are_refused(data, folder):
    with h5py.File(data) as file:
        columns = {name: file[name][:] for name in file}
    columns["state"] = np.roll(columns["state"], ROWS, axis=0)  # the next episode's
    with h5py.File(folder / "permuted.h5", "w") as file:
        for name, values in columns.items():
            file[name] = values
    with pytest.raises(UserError, match=r"do not fit its frames|grey levels"):
        look(folder / "permuted.h5")


def steps(path, sample=None):
    source = open_source(path)
    source.keys = sample.keys if sample else source.keys
    return check_steps(drawn(sample or source), source, RULES, restored_world("two_room", image_size=SIDE), "two_room")


def changed(data, path, name, change):
    with h5py.File(data) as file:
        columns = {name: file[name][:] for name in file}
    columns[name] = change(columns[name])
    with h5py.File(path, "w") as file:
        for column, values in columns.items():
            file[column] = values
    return path


def test_recorded_actions_lead_to_the_recorded_next_states(data, folder):
    assert steps(data) == 0
    still = changed(data, folder / "still.h5", "state", lambda states: np.full_like(states, 60))
    assert steps(still, open_source(data)) is None, "nothing moves, so there is nothing to compare"


@pytest.mark.parametrize(
    "change",
    [
        lambda actions: 256 + 200 * actions,  # where to, not which way
        lambda actions: -actions,
        lambda actions: actions[:, ::-1],
        lambda actions: np.roll(actions, 7, axis=0),
    ],
    ids=["absolute", "reversed", "swapped", "shifted"],
)
def test_actions_of_another_meaning_are_refused(change, data, folder, request):
    path = changed(data, folder / f"{request.node.callspec.id}.h5", "action", change)
    with pytest.raises(UserError, match=r"actions of .* do not lead to its next states in two_room") as caught:
        steps(path)
    assert "\n" not in str(caught.value)


def test_a_full_turn_of_an_angle_is_no_motion_and_no_error():
    rules, state = rules_of("push_t", "strict"), np.array((100.0, 100, 300, 300, 6.2, 0, 0))
    after = state + np.array((6, 0, 0, 0, 0.1 - 6.2, 0, 8))
    apart = plan_pairs.motion(rules, state, after)
    assert apart == pytest.approx(np.sqrt(6**2 + 8**2 + (0.1 + 2 * np.pi - 6.2) ** 2))
    assert plan_pairs.motion(RULES, np.zeros(2), np.array((0, 2 * np.pi))) == pytest.approx(2 * np.pi)


def find(path, setting, manifest=None, pairs=None, source=None):
    source = source or open_source(path)
    return find_pairs(setting, source, RULES, "two_room", RULE, manifest=manifest, split="auto", pairs=pairs)


def test_a_manifest_says_whether_it_is_what_its_own_seed_draws(data, folder, setting):
    source, path = open_source(data), folder / "m.json"
    one = drawn(source, 5, seed=7)
    one.write(path)
    found, about = find(data, setting, path, pairs=3)
    assert found.pairs == one.pairs[:3] and len(found.marks) == 3
    assert about == {"checksum": one.checksum, "seed": 7, "split_seed": 0, "as_drawn": True}
    last = one.pairs[-1]
    states = source.column("state", source.keys.index(last.episode))
    (row, *_) = (r for r in range(ROWS - 10) if r != last.start and not RULES.reason(states[r], states[r + 10]))
    other = Pair(last.episode, row, row + 10)
    for pairs in ((*one.pairs[:-1], other), one.pairs[::-1], one.pairs[1:]):
        picked = replace(one, pairs=pairs, marks=tuple(map(plan_pairs.marks_of(source, RULES), pairs)))
        picked.write(path)
        assert find(data, setting, path)[1]["as_drawn"] is False
    assert as_drawn(replace(one, split="nowhere"), source, RULES, RULE) is None


def test_data_of_the_same_keys_actions_and_frames_but_other_states_are_refused(data, folder, setting):
    path, other = folder / "states.json", folder / "states.h5"
    drawn(open_source(data), 5).write(path)
    with h5py.File(data) as file:
        columns = {name: file[name][:] for name in file}
    columns["state"] += np.float32(0.25)
    with h5py.File(other, "w") as file:
        for name, values in columns.items():
            file[name] = values
    one, two = open_source(data), open_source(other)
    two.keys = one.keys
    assert two.fingerprint() == one.fingerprint(), "which covers no states"
    with pytest.raises(UserError, match="other data: the states of pair 0"):
        find(other, setting, path, source=two)


def test_goal_frames_are_a_block_apart_and_end_at_the_goal(data):
    source = open_source(data)
    sample = drawn(source, 3)
    for task, pair in zip(tasks_of(sample, source, RULES, goals=2, frameskip=5), sample.pairs, strict=True):
        rows = np.array([pair.goal - 5, pair.goal])
        assert (task.goals == source.frames(source.keys.index(pair.episode), rows)).all()
    for task, pair in zip(tasks_of(sample, source, RULES), sample.pairs, strict=True):
        assert pair.goal == pair.start + 10
        assert (task.goals == source.frames(source.keys.index(pair.episode), np.array([pair.start + 10]))).all()
    with pytest.raises(UserError, match="--goals 3: so many goal frames, 5 steps apart, reach back to the start"):
        tasks_of(sample, source, RULES, goals=3, frameskip=5)

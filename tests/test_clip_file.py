"""Files of clips: what is written, and how it is read."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_violation_simulated import Dial

from lewm.cli import main
from lewm.datasets.clip_writer import EARLY, FRAMES, MIN_LEFT, NOWHERE, STEPS, collect_clips, collect_triples
from lewm.envs import make_policy, make_world
from lewm.envs.two_room import next_state
from lewm.envs.two_room_policy import RandomActions
from lewm.errors import UserError
from lewm.probes.clip_reader import is_clip_file, read_clip_file
from lewm.probes.results import sha256

SHARED = Path(__file__).parents[2] / "shared" / "data"
KINDS = ("moved", "vanished", "through_wall", "heavier", "slippery", "agent_colour", "wall_colour", "background_colour")


def read(path) -> dict:
    with h5py.File(path) as file:
        return {n: d.asstr()[:] if h5py.check_string_dtype(d.dtype) else d[:] for n, d in file.items()}


def collect(out, *flags: str, policy: str = "wander", size: int = 16):
    argv = ["collect", "two_room", "--out", str(out), "--image-size", str(size), "--policy", policy, *flags]
    assert main(argv) == 0
    return read(out)


# Triples are written


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    return collect(tmp_path_factory.mktemp("t") / "voe.h5", "--triples", "6", size=32)


def test_clips_of_a_triple_agree_before_the_event_and_differ_from_it_on(triples):
    for pixels, states, event in zip(triples["pixels"], triples["state"], triples["perturb_step"], strict=True):
        for kind in (1, 2):
            assert (pixels[kind, :event] == pixels[0, :event]).all()
            assert (pixels[kind, event] != pixels[0, event]).any()
        assert (states[1] == states[0]).all()  # paint moves nothing
        assert (states[2, :event] == states[0, :event]).all()
        assert np.linalg.norm(states[2, event] - states[0, event]) >= 40


def test_all_three_clips_obey_the_same_actions(triples):
    assert (triples["action"] == triples["action"][:, :1]).all()
    for states, actions, event in zip(triples["state"], triples["action"], triples["perturb_step"], strict=True):
        for kind in range(3):
            for t in range(39):
                expected = next_state(states[kind, t], actions[kind, t])
                if (kind, t + 1) != (2, event):
                    assert (states[kind, t + 1] == expected).all()


def test_new_colours_are_far_from_every_other_and_are_those_drawn(triples):
    others = np.array([[255, 0, 0], [0, 0, 0], [255, 255, 255]])
    world = make_world("two_room", image_size=32)
    for i, colour in enumerate(triples["visual_color"]):
        assert np.linalg.norm(others - colour.astype(float), axis=1).min() >= 150
        world.set_colour("agent", colour)
        world.set_state(triples["state"][i, 1, -1])
        assert (world.render() == triples["pixels"][i, 1, -1]).all()


def test_a_file_of_triples_holds_what_it_always_held(triples):
    shapes = {name: (values.dtype.kind, values.shape) for name, values in triples.items()}
    assert shapes == {
        "pixels": ("u", (6, 3, 40, 32, 32, 3)),
        "state": ("f", (6, 3, 40, 2)),
        "action": ("f", (6, 3, 40, 2)),
        "perturb_step": ("i", (6,)),
        "teleport_state": ("f", (6, 2)),
        "visual_color": ("u", (6, 3)),
        "visual_object": ("O", (6,)),
        "episode_seed": ("i", (6,)),
        "kind": ("O", (3,)),
    }
    assert set(triples["perturb_step"]) <= set(STEPS)
    event = triples["perturb_step"]
    assert (triples["teleport_state"] == triples["state"][np.arange(6), 2, event]).all()
    # Written by the code of the first release, from the same seed.
    assert event.tolist() == [20, 15, 20, 25, 20, 15]
    assert triples["visual_color"][:3].tolist() == [[5, 194, 169], [41, 229, 65], [96, 86, 243]]
    np.testing.assert_array_equal(triples["teleport_state"][0], np.float32((25.178998947143555, 132.8115234375)))


def test_an_existing_file_is_never_overwritten_and_nothing_is_collected_for_it(tmp_path):
    (tmp_path / "v.h5").write_text("kept")
    world = make_world("two_room", image_size=32)
    world.step = None  # is not called
    policy = make_policy("two_room", "wander")
    with pytest.raises(UserError, match="exists"):
        collect_triples(world, policy, tmp_path / "v.h5", triples=3)
    with pytest.raises(UserError, match="exists"):
        collect_clips(world, policy, tmp_path / "v.h5", clips=3, kinds=["moved"])
    assert (tmp_path / "v.h5").read_text() == "kept"


# Other kinds are written


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "clips.h5"
    collect(path, "--triples", "12", "--kinds", "all", "--seed", "4")
    return path


@pytest.fixture(scope="module")
def clips(clip_file):
    return read(clip_file)


def test_a_file_of_other_kinds_says_of_each_its_nature_its_event_and_whether_it_happens(clips):
    n, v = 12, 1 + len(KINDS)
    assert tuple(clips["kind"]) == ("unperturbed", *KINDS)
    assert tuple(clips["nature"]) == ("unperturbed", *["physical"] * 5, *["visual"] * 3)
    assert clips["pixels"].shape == (n, v, FRAMES, 16, 16, 3) and clips["pixels"].dtype == np.uint8
    assert clips["action"].shape == clips["state"].shape == (n, v, FRAMES, 2)
    assert clips["perturb_step"].shape == clips["happens"].shape == (n, v)
    assert clips["perturb_step"].dtype == np.int64 and clips["happens"].dtype == bool
    assert (clips["action"] == clips["action"][:, :1]).all()


def test_the_event_is_the_first_frame_that_differs_and_what_does_not_happen_is_the_plain_clip(clips):
    pixels, state = clips["pixels"], clips["state"]
    for i, j in np.ndindex(clips["happens"].shape):
        first = clips["perturb_step"][i, j]
        if clips["happens"][i, j]:
            assert min(EARLY) < first <= FRAMES - MIN_LEFT
            assert (pixels[i, j, :first] == pixels[i, 0, :first]).all()
            assert (pixels[i, j, first] != pixels[i, 0, first]).any()
        else:
            assert first == NOWHERE
            assert (pixels[i, j] == pixels[i, 0]).all() and (state[i, j] == state[i, 0]).all()
    share = dict(zip(clips["kind"], clips["happens"].mean(axis=0), strict=True))
    assert share.pop("unperturbed") == 0
    assert 0 < share.pop("through_wall") < 1 and set(share.values()) == {1.0}


def test_events_that_show_at_once_are_at_one_step_of_a_trial_and_laws_show_one_frame_later(clips):
    step = dict(zip(clips["kind"], clips["perturb_step"].T, strict=True))
    assert set(step["moved"]) <= set(STEPS)
    for kind in ("vanished", "agent_colour", "wall_colour", "background_colour"):
        assert (step[kind] == step["moved"]).all()
    for kind in ("heavier", "slippery"):
        assert (step[kind] == step["moved"] + 1).all()


def test_the_file_of_a_kind_does_not_depend_on_the_others_in_it(clips, tmp_path):
    few = collect(tmp_path / "few.h5", "--triples", "3", "--kinds", "wall_colour, through_wall ,moved", "--seed", "4")
    assert few["kind"].tolist() == ["unperturbed", "wall_colour", "through_wall", "moved"]
    columns = [clips["kind"].tolist().index(kind) for kind in few["kind"]]
    for name in ("pixels", "state", "perturb_step", "happens"):
        assert (few[name] == clips[name][:3][:, columns]).all()
    other = collect(tmp_path / "other.h5", "--triples", "3", "--kinds", "moved", "--seed", "5")
    assert (other["pixels"][:, 0] != few["pixels"][:, 0]).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--kinds", "moved"], "--kinds are of clips"),
        (["--triples", "2", "--kinds", "moved,melted"], "no violation 'melted' is made this way; there are: agent"),
        (["--triples", "2", "--kinds", "freeze"], "no violation 'freeze' is made this way"),
        (["--triples", "2", "--kinds", " , "], "no kind of event is named"),
    ],
)  # fmt: skip
def test_kinds_that_cannot_be_made_are_refused_before_anything_is_collected(capsys, tmp_path, flags, message):
    out = tmp_path / "made" / "clips.h5"
    assert main(["collect", "two_room", "--out", str(out), "--image-size", "16", *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# A planted model with exact dynamics


def surprises(path, frameskip: int) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """Of each version that happens: kind, step of the event, squared error along the clip, and how far it moves.

    The model knows the position and Two-Room's own laws, and expects of a block of actions what they lead to.
    """
    stored, found = read(path), []
    for trial in read_clip_file(path, frameskip, 99).each:
        for kind, version in trial.versions.items():
            states = stored["state"][trial.group, stored["kind"].tolist().index(kind)][::frameskip]
            error, moved = [], []
            for here, there, block in zip(states[:-1], states[1:], version.clip.actions, strict=True):
                expected = here
                for action in block:
                    expected = next_state(expected, action)
                error.append(np.square(expected - there).sum())
                moved.append(np.abs(expected - here).sum())
            found.append((kind, version.event, np.array(error), np.array(moved)))
    return found


@pytest.mark.parametrize("frameskip", [1, 2, 5])
def test_a_model_of_exact_dynamics_is_surprised_by_events_that_break_them_and_from_the_event_on(clip_file, frameskip):
    for kind, event, error, moved in surprises(clip_file, frameskip):
        assert (error[:event] == 0).all(), kind
        if kind in ("moved", "through_wall", "heavier", "slippery"):
            assert error[event] > 0, kind
        else:  # the position alone neither has colours nor vanishes
            assert (error == 0).all(), kind
        if kind == "moved":
            assert (error[event + 1 :] == 0).all() and error[event] > 15**2
        if kind == "heavier":
            after = moved[event:] > 0.5
            assert after.sum() > 0 and (error[event:][after] > 0).all()
    kinds = {kind for kind, *_ in surprises(clip_file, frameskip)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("frameskip", [1, 5])
def test_slipping_goes_on_surprising_while_the_agent_moves(clip_file, frameskip):
    shares = [
        np.mean(error[event:] > 0) for kind, event, error, _ in surprises(clip_file, frameskip) if kind == "slippery"
    ]
    assert np.mean(shares) > 0.95  # now and then two borders hold it


# Any world


@pytest.mark.parametrize("wrap", [lambda world: world, lambda world: gymnasium.wrappers.TimeLimit(world, 10)])
def test_any_world_with_the_setters_can_be_asked_also_inside_wrappers(tmp_path, wrap):
    collect_clips(wrap(Dial()), RandomActions(), tmp_path / "d.h5", clips=5, kinds=["all"])
    trials = read_clip_file(tmp_path / "d.h5", 5, 99)
    assert trials.natures == {"moved": "physical"}
    for trial in trials.each:
        column = trial.versions["moved"].clip.pixels[:, 0, :, 0].argmax(axis=1)
        plain = trial.plain.pixels[:, 0, :, 0].argmax(axis=1)
        event = trial.versions["moved"].event
        assert (column == plain)[: event + 1].all() and abs(column[event + 1] - plain[event + 1]) >= 39


class Blind(Dial):
    def render(self):
        return None


class Unplaced(Dial):
    sample_state = property(lambda self: (_ for _ in ()).throw(AttributeError))


class Fickle(Dial):
    """Draws noise that no seed governs."""

    def step(self, action):
        self.draws = getattr(self, "draws", 0) + 1
        return super().step(action + self.draws)


@pytest.mark.parametrize(
    ("world", "kinds", "message"),
    [
        (Dial, ["moved", "vanished"], "'vanished' cannot be made in Dial: it has no set_visible"),
        (Unplaced, ["moved"], "Unplaced has no sample_state, which every clip takes"),
        (Blind, ["moved"], r"Blind.render\(\) must give a frame \(h, w, c\) uint8, not NoneType"),
        (Fickle, ["moved"], "Fickle does not repeat itself"),
    ],
)
def test_a_world_that_lacks_what_it_takes_is_refused_in_one_line_and_leaves_no_file(tmp_path, world, kinds, message):
    with pytest.raises(UserError, match=message) as caught:
        collect_clips(world(), RandomActions(), tmp_path / "d.h5", clips=5, kinds=kinds)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_triples_of_a_world_without_colours_are_refused(tmp_path):
    with pytest.raises(UserError, match="'agent_colour' cannot be made in Dial: it has no colours"):
        collect_triples(Dial(), RandomActions(), tmp_path / "d.h5", triples=5)


# Files are read


def write_clips(path, perturbed, frames=13, kinds=("unperturbed", "visual", "physical"), jump=50, **more):
    """Clips whose first pixel walks by the actions; a physical event adds a jump, a visual one changes pixel 2."""
    rng = np.random.default_rng(0)
    perturbed, v = np.asarray(perturbed), len(kinds)
    n = len(perturbed)
    actions = np.repeat(rng.integers(0, 3, (n, 1, frames, 1)), v, axis=1).astype(np.float32)
    pixels = np.zeros((n, v, frames, 4, 4, 3), dtype=np.uint8)
    pixels[..., 0, 0, 0] = np.concatenate([np.zeros((n, v, 1)), np.cumsum(actions[:, :, :-1, 0], axis=2)], axis=2)
    for i, j in np.ndindex(n, v):
        p = perturbed[i] if perturbed.ndim == 1 else perturbed[i, j]
        if kinds[j] == "visual":
            pixels[i, j, p:, 2, 2, :] = 200
        elif kinds[j] != "unperturbed":
            pixels[i, j, p:, 0, 0, 0] += jump
    columns = {"pixels": pixels, "action": actions, "perturb_step": perturbed, "kind": np.array(kinds, dtype="S")}
    with h5py.File(path, "w") as file:
        for name, values in (columns | more).items():
            file[name] = values
    return path


def test_files_of_clips_are_told_from_data_sets(tmp_path, clip_file):
    assert is_clip_file(write_clips(tmp_path / "t.h5", [2])) and is_clip_file(clip_file)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["pixels"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("no")
    assert not any(is_clip_file(tmp_path / name) for name in ("flat.h5", "text.h5", "missing.h5", "."))


@pytest.mark.parametrize("frameskip", [1, 2, 3, 5])
@pytest.mark.parametrize("perturbed", [1, 4, 5, 6, 10])
def test_the_event_is_the_step_that_leads_to_the_first_frame_that_shows_it(tmp_path, frameskip, perturbed):
    trials = read_clip_file(write_clips(tmp_path / "t.h5", [perturbed]), frameskip, 99)
    trial = next(iter(trials.each))
    assert set(trial.versions) == {"visual", "physical"}
    for version in trial.versions.values():
        differs = (version.clip.pixels != trial.plain.pixels).any(axis=(1, 2, 3))
        assert version.event + 1 == differs.argmax() == -(-perturbed // frameskip)
        assert len(version.clip.pixels) == 12 // frameskip + 1
        assert version.clip.actions.shape == (12 // frameskip, frameskip, 1)
        assert version.clip.actions.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(perturbed=st.integers(1, 12), frameskip=st.integers(1, 6), seed=st.integers(0, 3))
def test_an_event_is_read_where_it_is_seen_or_not_at_all(tmp_path_factory, perturbed, frameskip, seed):
    path = write_clips(tmp_path_factory.mktemp("h") / "t.h5", [1, perturbed], jump=seed)
    seen = -(-perturbed // frameskip) * frameskip <= 12
    first, second = read_clip_file(path, frameskip, 2).each
    assert set(first.versions) == ({"visual", "physical"} if seed else {"visual"})  # a jump of 0 is none
    assert set(second.versions) == (set(first.versions) if seen else set())
    for version in second.versions.values():
        assert 0 <= version.event < 12 // frameskip


def test_kinds_are_found_by_name_whatever_their_order(tmp_path):
    trials = read_clip_file(write_clips(tmp_path / "t.h5", [6], kinds=("physical", "unperturbed", "visual")), 2, 9)
    assert list(trials.natures.items()) == [("visual", "visual"), ("physical", "physical")]
    trial = next(iter(trials.each))
    assert (trial.versions["visual"].clip.pixels[3:, 2, 2] == 200).all()
    assert (trial.versions["physical"].clip.pixels[3:, 0, 0, 0] >= 50).all()
    assert (trial.plain.pixels[:, 2, 2] == 0).all() and trial.plain.pixels[-1, 0, 0, 0] < 50


def test_natures_come_from_the_file_and_each_kind_has_events_of_its_own(tmp_path):
    path = write_clips(
        tmp_path / "t.h5",
        [[-1, 4, 7], [-1, 9, -1]],
        kinds=("unperturbed", "a", "b"),
        nature=np.array(["unperturbed", "visual", "physical"], dtype="S"),
        happens=np.array([[0, 1, 1], [0, 1, 0]], dtype=bool),
    )
    trials = read_clip_file(path, 1, 9)
    assert trials.natures == {"a": "visual", "b": "physical"}
    events = [{kind: version.event for kind, version in trial.versions.items()} for trial in trials.each]
    assert events == [{"a": 3, "b": 6}, {"a": 8}]


def test_trials_can_be_looped_over_again_and_are_read_one_at_a_time(clip_file, monkeypatch):
    reads, getitem = [], h5py.Dataset.__getitem__

    def counted(self, args, **how):
        reads.extend([args] if self.name == "/pixels" else [])
        return getitem(self, args, **how)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    trials = read_clip_file(clip_file, 5, 7)
    assert reads == []
    first = next(iter(trials.each))
    assert {trial for trial, _ in reads} == {0}
    loops = [list(trials.each) for _ in range(2)]
    assert [trial.group for trial in loops[0]] == list(range(7))
    for again in loops:
        assert (again[0].plain.pixels == first.plain.pixels).all()
        assert set(again[0].versions) == set(first.versions)


def test_trials_are_known_by_the_hash_of_their_file(clip_file):
    trials = read_clip_file(clip_file, 5, 7)
    assert trials.fingerprint == sha256(clip_file)
    assert (trials.what, trials.split) == ("clips of a file", "all")


def test_a_version_with_nothing_left_of_its_event_is_absent_but_one_with_other_actions_is_not(tmp_path):
    path = write_clips(tmp_path / "t.h5", [6, 6], jump=0)
    with h5py.File(path, "a") as file:
        file["pixels"][0, 2, 7] += 1  # between the frames that are kept
        file["action"][1, 2, 6] += 1  # after the event
    assert [set(trial.versions) for trial in read_clip_file(path, 5, 9).each] == [{"visual"}, {"visual", "physical"}]
    assert [set(trial.versions) for trial in read_clip_file(path, 1, 9).each] == [{"visual", "physical"}] * 2


def test_the_last_row_of_actions_leads_nowhere_and_may_be_missing_from_the_numbers(tmp_path):
    path = write_clips(tmp_path / "t.h5", [6, 12])
    with h5py.File(path, "a") as file:
        file["action"][:, :, -1] = np.nan
    assert [len(trial.versions) for trial in read_clip_file(path, 1, 9).each] == [2, 2]


def replaced(name, values):
    def change(file):
        del file[name]
        if values is not None:
            file[name] = values(file) if callable(values) else values

    return change


def put(name, where, value):
    return lambda file: file[name].__setitem__(where, value)


def natures(*words):
    return lambda file: file.create_dataset("nature", data=np.array(words, dtype="S"))


WRONG = {
    "no pixels": (replaced("pixels", None), "no data set 'pixels' in .*t.h5; a file of clips has"),
    "no actions": (replaced("action", None), "no data set 'action' in .*t.h5"),
    "no kinds": (replaced("kind", None), "no data set 'kind' in .*t.h5"),
    "a group": (lambda file: (file.__delitem__("action"), file.create_group("action")), "no data set 'action'"),
    "floats": (replaced("pixels", np.zeros((2, 3, 13, 4, 4, 3), np.float32)), r"must be uint8 .* float32 \(2, 3"),
    "a flat shape": (replaced("pixels", np.zeros((6, 13, 4, 4, 3), np.uint8)), r"must be uint8 \(n, v, t, h, w, c\)"),
    "fewer actions": (replaced("action", np.zeros((2, 3, 12, 1))), r"they are uint8 .*\(2, 3, 12, 1\)"),
    "words as actions": (replaced("action", np.full((2, 3, 13, 1), b"x")), "action numbers"),
    "no clips": (
        lambda file: [
            replaced(n, np.zeros((0, *file[n].shape[1:]), file[n].dtype))(file)
            for n in ("pixels", "action", "perturb_step")
        ],
        "holds no clips",
    ),
    "too few events": (replaced("perturb_step", np.array([6])), r"2 clips of 3 kinds and perturb_step int64 \(1,\)"),
    "fractional events": (replaced("perturb_step", np.array([6.0, 6.0])), "whole numbers"),
    "numbers as kinds": (replaced("kind", np.arange(3)), "`kind` of .* must be words"),
    "too few kinds": (replaced("kind", np.array([b"unperturbed", b"visual"])), "3 versions of a clip and kinds"),
    "a kind twice": (replaced("kind", np.array([b"unperturbed", b"visual", b"visual"])), "name each, each once"),
    "no plain clip": (replaced("kind", np.array([b"a", b"visual", b"physical"])), "needed are unperturbed and"),
    "an unknown kind": (replaced("kind", np.array([b"unperturbed", b"visual", b"odd"])), "of kind 'odd' nature None"),
    "a strange nature": (natures("unperturbed", "visual", "magic"), "of kind 'physical' nature 'magic'.* visual or"),
    "no nature": (natures("unperturbed", "visual", "unperturbed"), "of kind 'physical' nature 'unperturbed'"),
    "too few natures": (natures("visual", "physical"), "2 words for 3 kinds"),
    "too few happens": (lambda file: file.create_dataset("happens", data=np.ones(2, bool)), r"booleans \(2, 3\)"),
    "an event at once": (put("perturb_step", 1, 0), "trial 1, kind 'visual': perturb_step 0 is outside the clip"),
    "a late event": (put("perturb_step", 1, 13), "trial 1, kind 'visual': perturb_step 13 is outside .* 1 to 12"),
    "infinite actions": (put("action", (1, 2, 3), np.inf), "trial 1, kind 'physical': actions are not finite"),
    "an earlier frame": (put("pixels", (1, 2, 5, 3, 3), 9), "trial 1, kind 'physical': frame 5 differs"),
    "a hidden earlier frame": (put("pixels", (1, 1, 1, 3, 3), 9), "trial 1, kind 'visual': frame 1 differs"),
    "an earlier action": (put("action", (1, 2, 4), 7.0), "trial 1, kind 'physical': action 4 differs .*_step 6"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_not_as_it_must_be_is_refused_in_one_line(tmp_path, wrong):
    change, message = WRONG[wrong]
    path = write_clips(tmp_path / "t.h5", [6, 6])
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UserError, match=message) as caught:
        list(read_clip_file(path, 2, 9).each)
    assert "\n" not in str(caught.value) and "t.h5" in str(caught.value)


def test_the_action_that_leads_into_the_event_may_be_part_of_it(tmp_path):
    path = write_clips(tmp_path / "t.h5", [6])
    with h5py.File(path, "a") as file:
        file["action"][0, 2, 5] = 7
    version = next(iter(read_clip_file(path, 3, 9).each)).versions["physical"]
    assert version.event == 1 and (version.clip.actions[1] == 7).any() and not (version.clip.actions[0] == 7).any()


def test_clips_too_short_for_the_frameskip_or_for_any_event_to_be_seen_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"4 frames .* too short for frameskip 5"):
        read_clip_file(write_clips(tmp_path / "a.h5", [2], frames=4), 5, 1)
    with pytest.raises(UserError, match=r"no event of .* is seen at frameskip 5, which keeps 3 of 13 frames"):
        read_clip_file(write_clips(tmp_path / "b.h5", [11, 12]), 5, 9)


def test_trials_that_are_not_read_need_not_be_right(tmp_path):
    path = write_clips(tmp_path / "t.h5", [6, 0])
    assert len(list(read_clip_file(path, 2, 1).each)) == 1


def test_what_is_no_file_of_hdf5_or_is_damaged_is_named(tmp_path):
    (tmp_path / "text.h5").write_text("no")
    for name in ("text.h5", "missing.h5"):
        with pytest.raises(UserError, match=f"not a readable HDF5 file: .*{name}"):
            read_clip_file(tmp_path / name, 2, 9)
    with h5py.File(write_clips(tmp_path / "t.h5", [6, 6]), "a") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        stored = file.create_dataset("pixels", data=pixels, chunks=(1, *pixels.shape[1:]), compression="gzip")
        stored.id.write_direct_chunk((1, 0, 0, 0, 0, 0), b"damaged")
    with pytest.raises(UserError, match="trial 1: frames cannot be read"):
        list(read_clip_file(tmp_path / "t.h5", 2, 9).each)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside this checkout")
@pytest.mark.parametrize("name", ["voe_tworoom_64.h5", "voe_pusht_64.h5"])
def test_recorded_triples_load(name):
    trials = read_clip_file(SHARED / name, 5, 99)
    found = [(trial.plain.pixels.shape, set(trial.versions)) for trial in trials.each]
    assert found == [((8, 64, 64, 3), {"visual", "physical"})] * 20

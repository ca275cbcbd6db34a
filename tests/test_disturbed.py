from pathlib import Path

import numpy as np
import pytest

import lewm.datasets.violation_recorded  # noqa: F401 - the kinds make themselves known
from lewm.datasets.violation import REGISTRY, Clip
from lewm.errors import UserError
from lewm.probes.disturbed import (
    MAX_FRAMES,
    action_std,
    agree,
    background,
    chosen_clips,
    disturbed,
    first_wrong,
    frames_per_clip,
    happens,
)

NAMES = [
    *("teleport", "time_jump", "reversal", "freeze", "frame_swap", "exchanged_actions"),
    *("recolour", "region_colour", "brightness", "noise", "patch"),
]
KINDS = [REGISTRY[name]() for name in NAMES]
PHYSICAL = {kind.name for kind in KINDS if kind.nature == "physical"}
SPEEDS = (1, 2, 3, 4, 5, 6)  # pixels a row, no two alike


class Lanes:
    """Episodes of a bright dot, each in a lane (a row of the picture) of its own, at a speed of its own.

    With `sway`, each row's step is longer by 0 to `sway` pixels, so that actions fit only the rows they were taken in.
    """

    path = Path("lanes.h5")

    def __init__(self, speeds=SPEEDS, length=40, floors=None, sway=0):
        self.floors = floors or [100] * len(speeds)
        self.lengths = np.full(len(speeds), length)
        more = np.random.default_rng(0).integers(0, sway + 1, (len(speeds), length))
        self.steps = np.array(speeds)[:, None] + more  # (episodes, rows), pixels
        self.columns = np.cumsum(self.steps, axis=1) - self.steps  # where the dot is in each row
        self.frame_shape = (len(speeds) + 1, 1 + max(length, self.columns.max()), 3)
        self.frames_read = 0

    def frames(self, episode, rows):
        self.frames_read += len(rows)
        out = np.full((len(rows), *self.frame_shape), self.floors[episode], dtype=np.uint8)
        out[np.arange(len(rows)), episode, self.columns[episode, rows]] = (255, 250, 250)
        return out

    def actions(self, episode):
        actions = self.steps[episode, :, None].astype(np.float32)
        actions[-1] = np.nan  # the last row has no valid action
        return actions

    def fingerprint(self):
        return "lanes"


def swaying():
    """No block of actions of one episode is as long as one of another, and few within an episode are alike."""
    return Lanes(speeds=tuple(range(3, 21, 3)), sway=2)


def places(pixels):
    """Where the dot is: the lane and the column in each frame."""
    return np.unravel_index(pixels[..., 0].reshape(len(pixels), -1).argmax(axis=1), pixels.shape[1:3])


def surprise(clip):
    """Of a model that knows where the dot is (lane, column) and how it moves, step by step."""
    lane, column = places(clip.pixels)
    return np.diff(lane) ** 2 + (np.diff(column) - clip.actions.sum(axis=(1, 2))) ** 2


def made(source=None, *, kinds=KINDS, clips=12, seed=0, frameskip=2, episodes=None):
    source = source or Lanes()
    episodes = np.arange(len(source.lengths)) if episodes is None else episodes
    return disturbed(source, episodes, frameskip, kinds, clips, seed)


def kinds_in(trials):
    return {name for trial in trials.each for name in trial.versions}


def assert_equal_clips(one, two):
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_array_equal(one.actions, two.actions)


# A planted walker


@pytest.mark.parametrize("frameskip", [1, 2, 5])
def test_a_model_of_the_dynamics_is_surprised_by_the_event_and_never_before(frameskip):
    trials = list(made(swaying(), frameskip=frameskip).each)
    assert {trial.group for trial in trials} == set(range(len(SPEEDS)))
    for trial in trials:
        assert (surprise(trial.plain) == 0).all()
        for name in PHYSICAL & set(trial.versions):
            version = trial.versions[name]
            steps, event, last = surprise(version.clip), version.event, len(trial.plain.actions) - 1
            expected = {
                "teleport": [event],
                "time_jump": [event],
                "frame_swap": [step for step in (event, event + 1, event + 2) if step <= last],
            }.get(name, list(range(event, last + 1)))
            assert np.flatnonzero(steps).tolist() == expected, name


@pytest.mark.parametrize("frameskip", [1, 2, 5])
def test_every_clip_of_a_scene_has_the_actions_of_its_own_rows(frameskip):
    each, jumps = made(swaying(), frameskip=frameskip, clips=24).each, 0
    for episode, start in each.chosen:
        scene = each.scene(episode, start)
        assert (surprise(scene.own) == 0).all() and (surprise(scene.other) == 0).all()
        if scene.later is not None:
            assert (surprise(scene.later) == 0).all()
            jumps += 1
    assert jumps or frameskip == 5  # of 40 rows


def test_exchanged_actions_are_those_that_the_teleported_dot_follows():
    both = ("teleport", "exchanged_actions")
    found = [trial.versions for trial in made(swaying(), clips=24).each if set(both) <= set(trial.versions)]
    assert len(found) > 12
    for teleport, exchanged in ([versions[name] for name in both] for versions in found):
        first = teleport.event + 1
        assert exchanged.event == teleport.event
        assert (surprise(Clip(teleport.clip.pixels[first:], exchanged.clip.actions[first:])) == 0).all()


def test_every_kind_happens_to_a_walker():
    trials = made(clips=24)
    assert kinds_in(trials) == set(NAMES)
    assert trials.natures == {kind.name: kind.nature for kind in KINDS} and list(trials.natures) == NAMES
    assert (trials.fingerprint, trials.what) == ("lanes", "disturbed clips of 12 frames from lanes.h5")


def test_versions_are_the_plain_clip_before_their_event():
    for trial in made().each:
        for name, version in trial.versions.items():
            first = version.event + 1
            np.testing.assert_array_equal(version.clip.pixels[:first], trial.plain.pixels[:first])
            np.testing.assert_array_equal(version.clip.actions[: first - 1], trial.plain.actions[: first - 1])
            if name not in ("teleport", "time_jump", "exchanged_actions"):
                assert version.clip.actions is trial.plain.actions


# Where nothing happens


def test_an_agent_that_rests_neither_freezes_nor_runs_backwards():
    found = kinds_in(made(Lanes(speeds=(0, 0, 0))))
    assert found & PHYSICAL == {"teleport"}  # into another lane
    assert {"recolour", "region_colour", "patch"} <= found


def test_exchanged_actions_that_are_equal_are_no_event():
    found = kinds_in(made(Lanes(speeds=(2, 2, 2))))
    assert "exchanged_actions" not in found and {"teleport", "freeze"} <= found


def small(pixel=0, action=0.0):
    pixels, actions = np.full((4, 2, 2, 1), 100, dtype=np.uint8), np.zeros((3, 2, 2), dtype=np.float32)
    pixels[2, 1, 0, 0] = 100 + pixel
    actions[1] = action
    return Clip(pixels, actions)


@pytest.mark.parametrize(
    ("change", "does"),
    [({}, False), ({"pixel": 16}, False), ({"pixel": 17}, True), ({"pixel": -17}, True), ({"pixel": -16}, False)],
)
def test_a_picture_has_changed_where_one_pixel_has_by_more_than_16_grey_levels(change, does):
    assert happens(small(**change), small(), 2, np.ones(2)) is does
    assert happens(small(), small(**change), 2, np.ones(2)) is does


@pytest.mark.parametrize(("action", "does"), [(0.9, False), (1.1, True), (-1.1, True)])
def test_actions_have_changed_where_their_root_mean_square_is_half_a_standard_deviation(action, does):
    assert happens(small(action=action), small(), 2, np.full(2, 2.0)) is does
    assert happens(small(pixel=90, action=9), small(), 1, np.full(2, 2.0)) is False  # of another frame and block


def test_actions_are_measured_over_all_valid_actions_of_the_episodes():
    source = Lanes()
    assert action_std(source, np.array([0, 2])) == pytest.approx(1)  # speeds 1 and 3
    assert action_std(source, np.array([4])).tolist() == [1]  # constant: in their own units


# Another episode


def test_another_episode_is_one_of_those_given():
    each, seen = made(swaying(), episodes=np.array([0, 2, 5]), clips=24).each, set()
    for episode, start in each.chosen:
        lane = int(places(each.scene(episode, start).other.pixels)[0][0])
        assert lane != episode
        seen.add(lane)
    assert seen == {0, 2, 5}


def test_another_episodes_clip_starts_anywhere_in_it():
    source = swaying()
    each, rows = made(source, clips=30).each, []
    for episode, start in each.chosen:
        lane, column = places(each.scene(episode, start).other.pixels)
        rows.append(int(np.searchsorted(source.columns[lane[0]], column[0])))
    last = 40 - 23  # a clip of 12 frames spans 23 rows
    assert len(set(rows)) > 8 and min(rows) <= 0.2 * last and 0.8 * last <= max(rows) <= last


# Backgrounds


def test_another_episode_has_the_same_background():
    source = Lanes(floors=[100, 180, 100, 180, 110, 190])
    for trial in made(source, clips=30).each:
        if "teleport" in trial.versions:
            shown = trial.versions["teleport"].clip.pixels[-1, -1, -1, 0]
            assert abs(int(shown) - source.floors[trial.group]) <= 16
    assert {"teleport", "exchanged_actions"} <= kinds_in(made(source))


def test_without_another_episode_of_this_background_nothing_is_teleported():
    found = kinds_in(made(Lanes(floors=[60, 90, 120, 150, 180, 210])))
    assert found & PHYSICAL == PHYSICAL - {"teleport", "exchanged_actions"}


def test_no_more_than_eight_other_episodes_are_tried():
    source = Lanes(speeds=tuple(range(1, 13)), floors=[20 * e for e in range(12)])
    trials = made(source, clips=1)
    source.frames_read = 0
    list(trials.each)
    assert source.frames_read == 16 + 8 * 12  # the clip and 4 frames for a jump; candidates


def test_backgrounds_agree_where_nine_of_ten_pixels_do_in_every_channel():
    one = np.full((10, 10, 3), 100, dtype=np.uint8)
    two = one.copy()
    two[0, :, 1] = 0
    assert agree(one, two) and agree(two, one)
    two[1, 0, 2] = 117
    assert not agree(one, two) and not agree(two, one)
    two[1, 0, 2] = 116
    assert agree(one, two)


def test_a_background_is_what_stands_still_for_half_of_the_clip():
    pixels = np.full((5, 1, 5, 1), 30, dtype=np.uint8)
    pixels[np.arange(5), 0, np.arange(5)] = 255
    assert (background(pixels) == 30).all()


# Which clip gets which event


def test_trials_are_the_same_every_time_and_others_with_another_seed():
    trials = made()
    runs = [list(trials.each), list(trials.each), list(made().each)]
    for one, *others in zip(*runs, strict=True):
        for other in others:
            assert list(one.versions) == list(other.versions) and one.group == other.group
            for name, version in one.versions.items():
                assert version.event == other.versions[name].event
                assert_equal_clips(version.clip, other.versions[name].clip)
    events = [[v.event for t in made(seed=seed, clips=24).each for v in t.versions.values()] for seed in (0, 1)]
    assert events[0] != events[1]


def test_fewer_kinds_do_not_change_the_others():
    few = [REGISTRY[name]() for name in ("patch", "teleport", "noise")]
    for one, two in zip(made().each, made(kinds=few).each, strict=True):
        assert set(two.versions) == set(one.versions) & {"patch", "teleport", "noise"}
        for name, version in two.versions.items():
            assert version.event == one.versions[name].event
            assert_equal_clips(version.clip, one.versions[name].clip)


def test_every_clip_and_every_purpose_draws_numbers_of_its_own():
    each = made().each
    keys = [(e, s, p) for e in (0, 1) for s in (0, 1) for p in ("first", "other", "noise", "patch", "teleport")]
    assert len({each.rng(*key).random() for key in keys}) == len(keys)


def test_more_clips_do_not_change_what_happens_to_one():
    few, many = list(made(clips=6).each), list(made(clips=18).each)  # the middle of each third is one of the whole's
    assert (len(few), len(many)) == (6, 18)
    for trial in few:
        (same,) = [t for t in many if t.group == trial.group and (t.plain.pixels == trial.plain.pixels).all()]
        for name, version in trial.versions.items():
            assert_equal_clips(version.clip, same.versions[name].clip)


def test_clips_differ_in_where_their_event_is():
    assert len({version.event for trial in made(clips=24).each for version in trial.versions.values()}) == 3


@pytest.mark.parametrize("num_frames", range(4, 20))
def test_the_event_is_late_enough_to_play_back_and_leaves_a_quarter_of_the_clip(num_frames):
    found = {first_wrong(num_frames, np.random.default_rng(seed)) for seed in range(100)}
    assert found == set(range(num_frames // 2 + 1, num_frames - max(1, num_frames // 4) + 1))
    assert all(2 * first - 1 - num_frames >= 0 for first in found)


@pytest.mark.parametrize(("length", "jump"), [(12, None), (15, None), (16, 2), (18, 3), (20, 4), (60, 4)])
def test_a_jump_in_time_is_as_far_as_the_episode_goes(length, jump):
    found = made(Lanes(length=length), clips=6, frameskip=1)  # one clip an episode, in its middle
    for trial in found.each:
        if jump is None:
            assert "time_jump" not in trial.versions
        else:
            event = trial.versions["time_jump"].event
            steps = surprise(trial.versions["time_jump"].clip)
            assert steps[event] == (jump * SPEEDS[trial.group]) ** 2


# Which clips there are


def test_one_trial_at_a_time_is_made():
    source = Lanes()
    trials = made(source)
    assert source.frames_read == 0 and len(trials.each) == 12
    next(iter(trials.each))
    assert source.frames_read <= 16 + 8 * 12


def test_clips_are_spread_over_episodes():
    starts = np.array([5, 0, 3, 9])
    assert chosen_clips(np.array([0, 2, 3]), starts, 7) == [(0, 1), (0, 3), (2, 0), (2, 2), (3, 2), (3, 6)]
    assert chosen_clips(np.array([0, 2, 3]), starts, 2) == [(0, 2), (2, 1)]


@pytest.mark.parametrize(("length", "frameskip", "num"), [(40, 1, MAX_FRAMES), (40, 5, 8), (12, 5, 4)])
def test_a_clip_is_as_long_as_half_of_the_episodes_hold(length, frameskip, num):
    assert frames_per_clip(Lanes(length=length), np.arange(6), frameskip) == num


def test_one_episode_is_refused_and_so_are_clips_of_too_few_frames():
    with pytest.raises(UserError, match=r"needs 2 episodes of at least 23 rows, lanes.h5 has 1 .* use --split all"):
        made(episodes=np.array([3]))
    with pytest.raises(UserError, match=r"needs 2 episodes of at least 91 rows, lanes.h5 has 0"):
        made(frameskip=30)

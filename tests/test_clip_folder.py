import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lewm.datasets.video import write_video
from lewm.datasets.windows import action_blocks, frame_rows
from lewm.errors import UserError
from lewm.probes.clip_folder import is_clip_folder, read_clip_folder
from lewm.probes.trials import event_step

FRAMES, EVENT, SKIP = 13, 6, 3


def clip_of(seed, num=FRAMES, size=(16, 20)):
    """A smooth clip that a codec keeps well: a square that walks over a plain ground."""
    frames = np.full((num, *size, 3), 60 + 10 * (seed % 10), dtype=np.uint8)
    for t in range(num):
        frames[t, 4:12, t % 10 : t % 10 + 8] = (200, 40, 90)
    return frames


def changed(frames, event=EVENT, value=250):
    frames = frames.copy()
    frames[event:, :6, :6] = value
    return frames


def write_images(frames, folder):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")  # 10 must come after 9


def write_trial(folder, clips, actions, events=EVENT, own=None, video=False):
    folder.mkdir(parents=True)
    for kind, frames in clips.items():
        if video:
            write_video(frames, folder / f"{kind}.mp4", 10)
        else:
            write_images(frames, folder / kind)
    np.save(folder / "actions.npy", actions)
    for kind, values in (own or {}).items():
        np.savetxt(folder / f"{kind}.actions.csv", values, delimiter=",", header="x,y", comments="")
    (folder / "event.json").write_text(json.dumps({"perturb_step": events}))
    return folder


def actions_of(seed, num=FRAMES):
    return np.random.default_rng(seed).normal(size=(num, 2)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Trials 2 and 10; one has a visual and a physical version, the other two physical ones, one with own actions."""
    root = tmp_path / "clips"
    a, b = clip_of(1), clip_of(2)
    write_trial(
        root / "trial2",
        {"unperturbed": a, "visual": changed(a, 4), "physical-jump": changed(a, 7, 0)},
        actions_of(1),
        {"visual": 4, "physical-jump": 7},
    )
    other = actions_of(2)
    other[EVENT - 1 :] += 1
    write_trial(
        root / "trial10",
        {"unperturbed": b, "physical": b, "physical-jump": changed(b)},
        actions_of(2)[:-1],
        own={"physical": other},
    )
    return root


def damaged(folder, change):
    """The same with one thing changed in trial2, whose path `change` gets."""
    change(folder / "trial2")
    return folder


def every(path, frameskip=SKIP, max_clips=99):
    return list(read_clip_folder(path, frameskip, max_clips).each)


@pytest.mark.parametrize("frameskip", [1, 2, 3, 5])
def test_trials_of_a_folder_equal_those_of_the_arrays_it_was_written_from(folder, frameskip):
    found = read_clip_folder(folder, frameskip, 99)
    assert found.natures == {"physical": "physical", "physical-jump": "physical", "visual": "visual"}
    assert list(found.natures) == sorted(found.natures) and found.split == "all"
    num = (FRAMES - 1) // frameskip + 1
    rows = frame_rows(0, num, frameskip)
    a, b, own = clip_of(1), clip_of(2), actions_of(2)
    own[EVENT - 1 :] += 1
    expected = [
        (
            a,
            actions_of(1),
            {"visual": (changed(a, 4), actions_of(1), 4), "physical-jump": (changed(a, 7, 0), actions_of(1), 7)},
        ),
        (b, actions_of(2), {"physical": (b, own, EVENT), "physical-jump": (changed(b), actions_of(2), EVENT)}),
    ]
    trials = list(found.each)
    assert [trial.group for trial in trials] == [0, 1]  # trial2 before trial10
    for trial, (frames, actions, versions) in zip(trials, expected, strict=True):
        assert np.array_equal(trial.plain.pixels, frames[rows])
        assert np.array_equal(trial.plain.actions, action_blocks(actions, 0, num, frameskip))
        assert trial.versions.keys() == versions.keys()
        for kind, (changed_frames, changed_actions, event) in versions.items():
            version = trial.versions[kind]
            assert np.array_equal(version.clip.pixels, changed_frames[rows])
            assert np.array_equal(version.clip.actions, action_blocks(changed_actions, 0, num, frameskip))
            assert version.event == event_step(event, frameskip, num)


def test_every_pass_reads_anew_and_one_trial_at_a_time(folder):
    found = read_clip_folder(folder, SKIP, 99)
    passes = [[trial.plain.pixels for trial in found.each] for _ in range(2)]
    assert all(np.array_equal(one, two) for one, two in zip(*passes, strict=True))
    shutil.rmtree(folder / "trial10" / "unperturbed")
    assert next(iter(found.each)).group == 0  # the second has not been looked at
    with pytest.raises(UserError, match="no such video"):
        list(found.each)


def test_kinds_are_those_of_the_trials_that_are_used(folder):
    found = read_clip_folder(folder, SKIP, 1)
    assert list(found.natures) == ["physical-jump", "visual"] and len(list(found.each)) == 1


def test_the_fingerprint_follows_names_and_contents_of_all_files(folder):
    def now():
        return read_clip_folder(folder, SKIP, 1).fingerprint

    seen = [now()]
    (folder / ".hidden").write_text("x")
    (folder / "trial2" / ".hidden").write_text("x")
    assert now() == seen[0]
    np.save(folder / "trial10" / "actions.npy", actions_of(3))
    seen.append(now())
    (folder / "trial10").rename(folder / "trial11")
    seen.append(now())
    (folder / "trial11" / "notes.txt").write_text("x")
    seen.append(now())
    assert len(set(seen)) == 4


def test_a_folder_of_clips_is_told_from_other_folders_and_from_files(folder, tmp_path):
    assert is_clip_folder(folder) and is_clip_folder(folder / "trial2")
    (tmp_path / "shards" / "train").mkdir(parents=True)
    (tmp_path / "shards" / "train" / "0000.tar").write_bytes(b"")
    for other in (tmp_path / "shards", tmp_path / "absent", folder / "trial2" / "actions.npy"):
        assert not is_clip_folder(other)


def test_one_trial_named_alone_is_explained(folder):
    with pytest.raises(UserError, match="the folder of one trial"):
        read_clip_folder(folder / "trial2", SKIP, 9)


def test_videos_are_compared_with_the_tolerance_of_their_codec(tmp_path):
    frames = clip_of(1)
    trial = write_trial(
        tmp_path / "c" / "t", {"unperturbed": frames, "physical": changed(frames)}, actions_of(1), video=True
    )
    (found,) = every(tmp_path / "c", 2)
    plain, version = found.plain.pixels, found.versions["physical"].clip.pixels
    assert not np.array_equal(plain[:3], version[:3])  # the codec looks ahead
    assert np.abs(plain.astype(int) - frames[::2]).mean() < 5
    write_video(255 - frames, trial / "physical.mp4", 10)
    with pytest.raises(UserError, match=r"physical\.mp4 and .*unperturbed\.mp4 are unequal before the event: frame 0"):
        every(tmp_path / "c", 2)


def test_images_must_be_equal_before_the_event_to_the_last_bit(folder):
    path = folder / "trial2" / "visual" / "3.png"  # between the frames that the model sees
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] += 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(
        UserError, match=r"visual and .*unperturbed are unequal before the event: frame 3 .* at frame 4"
    ):
        every(folder, 2)


def test_an_event_that_is_marked_too_late_is_found(folder):
    (folder / "trial2" / "event.json").write_text('{"perturb_step": {"visual": 5, "physical-jump": 7}}')
    with pytest.raises(UserError, match=r"visual and .* frame 4 differs"):
        every(folder)


def test_actions_must_be_equal_up_to_the_one_that_leads_to_the_event(folder):
    own = actions_of(2)
    own[EVENT - 2 :] += 1
    np.savetxt(folder / "trial10" / "physical.actions.csv", own, delimiter=",")
    with pytest.raises(UserError, match=rf"actions of .*physical .* unequal before the event: row {EVENT - 2}"):
        every(folder)


@pytest.mark.parametrize("step", [0, -1, FRAMES, 99])
def test_an_event_outside_the_clip_is_refused_and_its_file_named(folder, step):
    (folder / "trial10" / "event.json").write_text(json.dumps({"perturb_step": step}))
    with pytest.raises(UserError, match=rf"event\.json, physical: the event at row {step} is outside the clip"):
        every(folder)


def test_an_event_after_the_last_frame_that_is_seen_is_outside_the_clip(tmp_path):
    clips = {"unperturbed": clip_of(1), "visual": changed(clip_of(1), 11)}
    write_trial(tmp_path / "c" / "t", clips, actions_of(1), 11)
    assert every(tmp_path / "c", 2)[0].versions["visual"].event == 5
    with pytest.raises(UserError, match="outside the clip"):
        every(tmp_path / "c", 5)  # sees rows 0, 5 and 10


@pytest.mark.parametrize("step", ["3", True, 3.0, None, [3], {"physical": 3}, {"physical": 3, "physical-jump": "x"}])
def test_an_event_that_is_no_number_of_a_frame_is_refused_before_clips_are_read(folder, step):
    (folder / "trial10" / "event.json").write_text(json.dumps({"perturb_step": step}))
    with pytest.raises(UserError, match=r"perturb_step of .*event\.json"):
        read_clip_folder(folder, SKIP, 9)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\xff"])
def test_a_file_of_events_that_cannot_be_read_is_named(folder, text):
    (folder / "trial10" / "event.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"event\.json"):
        read_clip_folder(folder, SKIP, 9)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: shutil.rmtree(t / "unperturbed"), "no unperturbed clip in .*trial2"),
        (lambda t: (t / "actions.npy").unlink(), "no actions of .* in .*trial2"),
        (lambda t: (t / "event.json").unlink(), "no event.json in .*trial2"),
        (lambda t: (t / "visual").rename(t / "visula"), "visula is no kind of clip; there are: unperturbed, physical"),
        (lambda t: (t / "visual").rename(t / "visual-"), "visual- is no kind of clip"),
        (lambda t: (t / "actions.npy").rename(t / "action.npy"), "action.npy is not known"),
        (lambda t: np.savetxt(t / "actions.csv", [[1, 2]]), "the same thing twice"),
        (lambda t: write_video(clip_of(1), t / "visual.mp4", 9), "the same thing twice"),
        (lambda t: np.save(t / "physical.actions.npy", 1), "physical.actions.npy belongs to no clip"),
    ],
)
def test_what_is_missing_unknown_or_there_twice_is_named_before_clips_are_read(folder, change, match):
    with pytest.raises(UserError, match=match) as caught:
        read_clip_folder(damaged(folder, change), SKIP, 9)
    assert "\n" not in str(caught.value)


def shorter(trial):
    (trial / "visual" / "12.png").unlink()


def all_shorter(trial):
    for kind in ("unperturbed", "visual", "physical-jump"):
        (trial / kind / "12.png").unlink()
    np.save(trial / "actions.npy", actions_of(1)[:12])


def smaller(trial):
    shutil.rmtree(trial / "visual")
    write_images(clip_of(1, size=(16, 18)), trial / "visual")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (shorter, "visual has 12 frames, .*trial2/unperturbed has 13"),
        (all_shorter, "trial10/unperturbed has 13 frames, .*trial2/unperturbed has 12"),
        (smaller, "visual are 16 x 18, those of .*unperturbed 16 x 20"),
        (lambda t: np.save(t / "actions.npy", actions_of(1)[:10]), "actions.npy has 10 actions for 13 frames"),
        (
            lambda t: np.save(t / "visual.actions.npy", actions_of(1)[:, :1]),
            "visual have 1 numbers, those of .* have 2",
        ),
        (lambda t: np.save(t / "actions.npy", actions_of(1)[:, :1]), "trial10/unperturbed have 2 numbers, .* have 1"),
        (lambda t: np.save(t / "actions.npy", actions_of(1) * np.nan), "must be finite"),
    ],
)
def test_clips_that_are_not_alike_are_refused_with_both_values(folder, change, match):
    with pytest.raises(UserError, match=match) as caught:
        every(damaged(folder, change))
    assert "\n" not in str(caught.value)


def test_clips_too_short_for_the_frameskip_are_refused(folder):
    assert len(every(folder, FRAMES - 4)) == 2
    with pytest.raises(UserError, match=f"has {FRAMES} frames, too few for frameskip {FRAMES}"):
        every(folder, FRAMES)


def test_a_trial_without_versions_needs_no_event_and_a_folder_without_any_is_refused(folder, tmp_path):
    trial = folder / "trial2"
    for entry in ("visual", "physical-jump"):
        shutil.rmtree(trial / entry)
    (trial / "event.json").unlink()
    assert [len(t.versions) for t in every(folder)] == [0, 2]
    with pytest.raises(UserError, match="nothing happens"):
        read_clip_folder(folder, SKIP, 1)
    with pytest.raises(UserError, match="no trials"):
        read_clip_folder(tmp_path / "clips" / "trial10" / "physical", SKIP, 1)

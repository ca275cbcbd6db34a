import inspect

import numpy as np
import pytest

import lewm.datasets.violation_recorded as recorded
from lewm.datasets.violation import REGISTRY, Clip, Scene

KINDS = {
    "teleport": ("physical", False),
    "time_jump": ("physical", False),
    "reversal": ("physical", True),
    "freeze": ("physical", True),
    "frame_swap": ("physical", False),
    "exchanged_actions": ("physical", True),
    "recolour": ("visual", False),
    "region_colour": ("visual", False),
    "brightness": ("visual", False),
    "noise": ("visual", True),
    "patch": ("visual", False),
}
VISUAL = [name for name, (nature, _) in KINDS.items() if nature == "visual"]
SIZES = [(2, 2), (2, 9), (32, 32), (17, 40)]
SEEDS = range(20)


def disturb(name, scene, seed=0):
    return REGISTRY[name]().disturb(scene, np.random.default_rng(seed))


def read_only(pixels, actions):
    pixels, actions = np.array(pixels, dtype=np.uint8), np.array(actions, dtype=np.float32)
    pixels.flags.writeable = actions.flags.writeable = False
    return Clip(pixels, actions)


def coded(code, frames=8, size=(2, 2), channels=3):
    """A clip whose frame i and block i show the number code + i."""
    numbers = code + np.arange(frames)
    pixels = np.broadcast_to(numbers[:, None, None, None], (frames, *size, channels))
    return read_only(pixels, np.broadcast_to(numbers[:-1, None, None], (frames - 1, 2, 1)))


def coded_scene(first, frames=8, **changes):
    given = {"own": coded(0, frames), "later": coded(50, frames), "other": coded(100, frames)}
    return Scene(first=first, **(given | changes))


def shown(clip):
    """The numbers of the frames and blocks of a coded clip."""
    return clip.pixels[:, 0, 0, 0].tolist(), clip.actions[:, 0, 0].tolist()


def walk(seed, frames=8, size=(32, 32), channels=3, first=5):
    """Clips of a square that walks over a textured floor."""
    rng = np.random.default_rng(seed)
    floor = rng.integers(60, 180, (*size, channels))

    def made(offset):
        pixels = np.repeat(floor[None], frames, axis=0)
        for t in range(frames):
            at = (offset + t) % size[1]
            pixels[t, : max(1, size[0] // 8), at : at + max(1, size[1] // 8)] = 255 if t % 2 else 220
        return read_only(pixels, rng.normal(size=(frames - 1, 2, 2)))

    return Scene(made(0), first, made(4), made(9))


def flat(value, frames=6, size=(16, 16), channels=3, first=4):
    clip = read_only(np.full((frames, *size, channels), value), np.zeros((frames - 1, 1, 1)))
    return Scene(clip, first, None, None)


def changed(clip, scene):
    """Where frames from the event on differ from the clip's own: (t, h, w)."""
    return (clip.pixels != scene.own.pixels).any(axis=-1)[scene.first :]


def sides(mask):
    """Height and width of the box around all that is set."""
    return tuple(int(np.ptp(where)) + 1 for where in np.nonzero(mask))


# All kinds


def test_these_kinds_are_known():
    classes = [kind for _, kind in inspect.getmembers(recorded, inspect.isclass) if hasattr(kind, "name")]
    assert {kind.name: (kind.nature, kind.lasts) for kind in classes} == KINDS
    assert all(REGISTRY[kind.name] is kind and kind.__doc__ and "\n" not in kind.__doc__ for kind in classes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", KINDS)
def test_what_is_before_the_event_is_untouched(name, size, channels):
    for seed in SEEDS:
        scene = walk(seed, size=size, channels=channels, first=5 + seed % 3)  # its arrays refuse to be written to
        clip = disturb(name, scene, seed)
        if clip is None:
            assert name in ("brightness", "patch") or (name == "frame_swap" and scene.first == 7)
            continue
        assert clip.pixels.shape == scene.own.pixels.shape and clip.pixels.dtype == np.uint8
        assert clip.actions.shape == scene.own.actions.shape and clip.actions.dtype == np.float32
        np.testing.assert_array_equal(clip.pixels[: scene.first], scene.own.pixels[: scene.first])
        kept = scene.first - 1 if name == "exchanged_actions" else scene.first
        np.testing.assert_array_equal(clip.actions[:kept], scene.own.actions[:kept])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_the_event_is_in_frame_first_or_in_the_block_that_leads_to_it(name, channels):
    for seed in SEEDS:
        scene = walk(seed, channels=channels)
        clip = disturb(name, scene, seed)
        in_frames = changed(clip, scene)[0].any()
        in_actions = (clip.actions[scene.first - 1] != scene.own.actions[scene.first - 1]).any()
        assert (in_frames, in_actions) == ((False, True) if name == "exchanged_actions" else (True, False))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_numbers_make_the_same_clip(name):
    one, two = (disturb(name, walk(0), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_array_equal(one.actions, two.actions)


# Physical


@pytest.mark.parametrize(
    ("name", "frames", "blocks"),
    [
        ("teleport", [0, 1, 2, 3, 4, 105, 106, 107], [0, 1, 2, 3, 4, 105, 106]),
        ("time_jump", [0, 1, 2, 3, 4, 55, 56, 57], [0, 1, 2, 3, 4, 55, 56]),
        ("reversal", [0, 1, 2, 3, 4, 3, 2, 1], [0, 1, 2, 3, 4, 5, 6]),
        ("freeze", [0, 1, 2, 3, 4, 4, 4, 4], [0, 1, 2, 3, 4, 5, 6]),
        ("frame_swap", [0, 1, 2, 3, 4, 6, 5, 7], [0, 1, 2, 3, 4, 5, 6]),
        ("exchanged_actions", [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 104, 105, 106]),
    ],
)
def test_frames_and_blocks_of_a_physical_event(name, frames, blocks):
    assert shown(disturb(name, coded_scene(5))) == (frames, blocks)


@pytest.mark.parametrize(
    ("name", "lacking"), [("teleport", "other"), ("time_jump", "later"), ("exchanged_actions", "other")]
)
def test_a_kind_is_absent_where_the_scene_lacks_what_it_takes(name, lacking):
    assert disturb(name, coded_scene(5, **{lacking: None})) is None
    others = {"later": None, "other": None}
    del others[lacking]
    assert disturb(name, coded_scene(5, **others)) is not None


def test_the_last_frame_has_none_to_change_places_with():
    assert disturb("frame_swap", coded_scene(7)) is None
    assert shown(disturb("frame_swap", coded_scene(6)))[0] == [0, 1, 2, 3, 4, 5, 7, 6]


@pytest.mark.parametrize("frames", range(4, 30))
def test_a_reversal_never_reads_outside(frames):
    for first in range(frames // 2 + 1, frames - max(1, frames // 4) + 1):
        assert shown(disturb("reversal", coded_scene(first, frames)))[0] == [
            *range(first),
            *(first - 2 - j for j in range(frames - first)),
        ]
    if frames % 2 == 0:  # one frame earlier an index would be negative, and numpy would count it from the end
        with pytest.raises(AssertionError, match="do not play back"):
            disturb("reversal", coded_scene(frames // 2, frames))


# Visual


@pytest.mark.parametrize("name", VISUAL)
def test_a_visual_event_leaves_all_actions_and_stays_to_the_end(name):
    for seed in SEEDS:
        scene = walk(seed)
        clip = disturb(name, scene, seed)
        np.testing.assert_array_equal(clip.actions, scene.own.actions)
        assert changed(clip, scene).any(axis=(1, 2)).all()


def test_recolouring_turns_channels_and_inverts_grey():
    scene = flat((255, 0, 10))
    assert disturb("recolour", scene).pixels[:, 0, 0].tolist() == [[255, 0, 10]] * 4 + [[10, 255, 0]] * 2
    assert disturb("recolour", flat((110, 100, 95))).pixels[-1, 0, 0].tolist() == [145, 155, 160]  # as good as grey
    for channels in (1, 3):
        assert disturb("recolour", flat(10, channels=channels)).pixels[:, 0, 0, 0].tolist() == [10] * 4 + [245] * 2


@pytest.mark.parametrize("name", ["region_colour", "brightness", "noise"])
def test_a_region_is_a_box_of_a_quarter_to_half_of_each_side(name):
    found = set()
    for seed in SEEDS:
        scene = flat(128, size=(16, 40))
        mask = changed(disturb(name, scene, seed), scene).any(axis=0)
        height, width = sides(mask)
        assert 4 <= height <= 8 and 10 <= width <= 20
        assert mask.sum() == height * width
        found.add((*(int(at.min()) for at in np.nonzero(mask)), height, width))
    assert len(found) > 10


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tint_is_the_same_in_all_frames_and_clearly_seen(value, channels):
    for seed in SEEDS:
        scene = flat(value, channels=channels)
        frames = disturb("region_colour", scene, seed).pixels[scene.first :].astype(int)
        assert (frames[0] == frames[1]).all()
        assert np.abs(frames - value).max(axis=(0, 1, 2)).min() >= 32


def factors(value):
    scenes = [flat(value) for _ in SEEDS]
    clips = [disturb("brightness", scene, seed) for scene, seed in zip(scenes, SEEDS, strict=True)]
    return [c.pixels[-1].astype(int)[changed(c, s)[-1]].mean() / value for c, s in zip(clips, scenes, strict=True)]


def test_brightness_changes_both_ways_where_it_can():
    found = np.array(factors(100))
    assert ((found <= 0.6) | (found >= 1.5)).all()
    assert (found < 1).any() and (found > 1).any()


def test_white_only_darkens_near_black_only_lightens_and_black_does_neither():
    assert max(factors(255)) <= 0.6
    assert min(factors(22)) >= 1.5
    assert disturb("brightness", flat(0)) is None


def test_brightness_looks_for_a_region_that_is_not_black():
    pixels = np.zeros((6, 16, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = 120
    scene = Scene(read_only(pixels, np.zeros((5, 1, 1))), 4, None, None)
    assert all(disturb("brightness", scene, seed) is not None for seed in SEEDS)


def test_noise_is_of_the_stated_size_and_new_in_every_frame():
    scene = flat(128, frames=30, size=(64, 64), first=16)
    clip = disturb("noise", scene)
    mask = changed(clip, scene).any(axis=0)
    noise = clip.pixels[scene.first :][:, mask].astype(float) - 128
    assert noise.std() == pytest.approx(recorded.NOISE, rel=0.05) and abs(noise.mean()) < 1
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_a_patch_is_one_square_of_one_colour_where_nothing_moves(size):
    for seed in SEEDS:
        scene = walk(seed, size=size)
        clip = disturb("patch", scene, seed)
        moving = (np.ptp(scene.own.pixels, axis=0) > recorded.VISIBLE).any(axis=-1)
        if clip is None:
            assert moving.any()
            continue
        mask = changed(clip, scene)
        assert not (mask.any(axis=0) & moving).any()
        assert max(sides(mask.any(axis=0))) <= max(1, round(min(size) / 8))
        assert len(np.unique(clip.pixels[scene.first :][mask], axis=0)) == 1


def test_a_patch_is_found_the_one_place_that_is_still():
    pixels = np.random.default_rng(0).integers(0, 2, (6, 16, 16, 1)) * 255
    pixels[:, 5:7, 9:11] = 40
    scene = Scene(read_only(pixels, np.zeros((5, 1, 1))), 4, None, None)
    mask = changed(disturb("patch", scene), scene)[0]
    assert mask[5:7, 9:11].all() and mask.sum() == 4
    pixels[:, 6, 9] = pixels[:, 0, 0]
    pixels[0, 6, 9], pixels[1, 6, 9] = 0, 255
    assert disturb("patch", Scene(read_only(pixels, np.zeros((5, 1, 1))), 4, None, None)) is None

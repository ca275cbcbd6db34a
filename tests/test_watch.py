import csv
import sys

import numpy as np
import pytest
import torch
from conftest import ExactModel
from PIL import Image

from lewm import checkpoint as checkpoints
from lewm.datasets.video import read_frames, write_video
from lewm.errors import UserError
from lewm.probes.plots import BLUE, RED
from lewm.probes.watch import SIDE, STRIP, Judged, draw_strip, enlarged, read_clip, rgb, watch, watch_with


def scene(folder, num=21, size=(16, 16), dim=2):
    """A folder of images and a table of actions."""
    frames = np.random.default_rng(0).integers(0, 200, (num, *size, 3), dtype=np.uint8)
    (folder / "frames").mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"{i}.png")
    np.save(folder / "actions.npy", np.random.default_rng(1).normal(size=(num, dim)).astype(np.float32))
    return {"video": folder / "frames", "actions": folder / "actions.npy", "out": folder / "out"}, frames


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    checkpoints.save(tiny_model, tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def table(files):
    return list(csv.DictReader((files["out"] / "surprise.csv").read_text().splitlines()))


def marker(frame, colour=BLUE):
    """Where the marker is in a panel: the column with the most pixels of its colour, to both sides."""
    near = np.abs(frame.astype(int) - rgb(colour)).sum(axis=2) < 90
    kernel = np.ones(11)
    return int(np.convolve(near[-STRIP:].sum(axis=0), kernel, mode="same").argmax())


def test_surprise_is_that_of_the_frames_the_model_sees_and_is_told_of_the_frame_that_ends_the_step(
    tiny_model, checkpoint, tmp_path
):
    files, frames = scene(tmp_path, 22)
    actions = np.load(files["actions"])
    watch(checkpoint, **files)
    rows = table(files)
    assert [(int(r["step"]), int(r["frame"])) for r in rows] == [(i, 2 * i + 2) for i in range(10)]
    blocks = actions[:20].reshape(1, 10, 2, 2)
    with torch.inference_mode():
        expected = tiny_model.surprise(torch.from_numpy(frames[None, :21:2].copy()), torch.from_numpy(blocks))[0]
    assert np.allclose([float(r["surprise"]) for r in rows], expected.numpy(), rtol=1e-5)


def test_every_frame_is_shown_in_order_over_a_marker_that_moves_in_steps(checkpoint, tmp_path):
    files, frames = scene(tmp_path)
    path = watch(checkpoint, **files, fps=7)
    assert path == tmp_path / "out" / "watch.mp4"
    shown = read_frames(path)
    assert shown.shape == (21, SIDE + STRIP, SIDE, 3)
    times = SIDE // 16
    squares = shown[:, :SIDE].reshape(21, 16, times, 16, times, 3)[:, :, times // 2, :, times // 2]
    assert np.abs(squares.astype(int) - frames).mean() < 6
    at = [marker(panel) for panel in shown[2:]]
    assert at[0] == at[1] and all(np.diff(at)[1::2] > 20) and all(np.abs(np.diff(at)[0::2]) <= 1)


def test_what_is_to_come_is_pale_and_what_has_been_is_not():
    rows, surprise = np.arange(1, 11) * 2, np.linspace(1, 2, 10)
    strip = draw_strip(rows, surprise, None, 21, SIDE)
    assert np.array_equal(strip.after(0), strip.pale)
    half = strip.after(5)
    now = round(strip.points[4, 0])
    assert np.array_equal(half[:, : now - 8], strip.full[:, : now - 8])
    assert np.array_equal(half[:, now + 9 :], strip.pale[:, now + 9 :])
    assert not np.array_equal(half[:, now + 9 :], strip.full[:, now + 9 :])


def test_the_marker_lies_on_the_curve():
    surprise = np.array([0.5, 3.0, 1.0, 2.0])
    strip = draw_strip(np.array([5, 10, 15, 20]), surprise, None, 21, SIDE)
    for i, (x, y) in enumerate(np.round(strip.points).astype(int)):
        # The full curve has its colour there, before any marker is painted.
        assert np.abs(strip.full[y - 1 : y + 2, x - 1 : x + 2].astype(int) - rgb(BLUE)).sum(axis=2).min() < 60
        assert (strip.after(i + 1)[y, x] == rgb(BLUE)).all()
    assert strip.points[1, 1] < strip.points[3, 1] < strip.points[2, 1] < strip.points[0, 1]  # higher is nearer to 0


def test_rare_steps_are_marked_in_the_video_and_told_in_the_table(tiny_model, tmp_path):
    files, _ = scene(tmp_path)
    p = np.array([0.5, 0.01, 0.011, 0.5, 0.001, *[0.5] * 5])
    strip = draw_strip(np.arange(1, 11) * 2, np.ones(10), p, 21, SIDE)
    assert strip.rare.tolist() == (p <= 0.01).tolist()
    x, y = np.round(strip.points[1]).astype(int)
    assert (strip.after(2)[y, x] == rgb(RED)).all()
    assert (draw_strip(np.arange(1, 11) * 2, np.ones(10), p + 0.01, 21, SIDE).full != strip.full).any()
    path = watch_with(tiny_model, lambda pixels, actions: Judged(np.arange(10.0), p), **files)
    found = table(files)
    assert [float(row["p_value"]) for row in found] == p.tolist()
    drawn = draw_strip(np.arange(1, 11) * 2, np.array([float(row["surprise"]) for row in found]), p, 21, SIDE)
    assert abs(marker(read_frames(path)[4], RED) - drawn.points[1, 0]) <= 2


def test_another_score_takes_the_place_of_surprise(tmp_path):
    files, frames = scene(tmp_path, 9, (2, 2), dim=1)
    seen = []

    def judge(pixels, actions):
        seen.append((tuple(pixels.shape), pixels.dtype, tuple(actions.shape), actions.dtype))
        return Judged(pixels.float().diff(dim=1).abs().mean(dim=(2, 3, 4))[0].numpy(), None)

    watch_with(ExactModel(), judge, **files)
    assert seen == [((1, 5, 2, 2, 3), torch.uint8, (1, 4, 2, 1), torch.float32)]
    found = table(files)
    expected = np.abs(np.diff(frames[::2].astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert np.allclose([float(row["surprise"]) for row in found], expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((16, 16), (384, 384)), ((50, 70), (300, 420)), ((400, 600), (400, 600)), ((100, 20), (400, 384))],
)
def test_small_frames_are_enlarged_by_whole_numbers_and_narrow_ones_get_white_sides(size, expected):
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    large = enlarged(frame)
    assert large.shape[:2] == expected
    times, left = expected[0] // size[0], (expected[1] - expected[0] // size[0] * size[1]) // 2
    assert np.array_equal(large[::times, left : left + times * size[1] : times], frame)
    assert (large[:, :left] == 255).all()


@pytest.mark.parametrize("num", [3, 4, 5, 21])
def test_short_clips_and_leftover_frames_are_shown_too(checkpoint, tmp_path, num):
    files, _ = scene(tmp_path, num)
    assert len(read_frames(watch(checkpoint, **files))) == num


def test_constant_and_negative_scores_can_be_drawn():
    for surprise in (np.zeros(3), np.full(3, 7.0), np.array([-2.0, -1.0, -3.0])):
        strip = draw_strip(np.array([1, 2, 3]), surprise, None, 4, SIDE)
        assert ((strip.points[:, 1] > 0) & (strip.points[:, 1] < STRIP)).all()


def test_frames_of_another_size_are_refused_unless_they_may_be_resized(checkpoint, tmp_path):
    files, _ = scene(tmp_path, 9, (20, 24))
    with pytest.raises(UserError, match="20 x 24, the model takes 16 x 16"):
        watch(checkpoint, **files)
    assert read_frames(watch(checkpoint, **files, resize=True)).shape == (9, 320 + STRIP, 384, 3)


def test_the_missing_extra_is_told_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'lewm\[video\]'"):
        watch(tmp_path / "absent.ckpt", video="v", actions="a", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_video_that_is_watched_is_not_overwritten(checkpoint, tmp_path):
    files, frames = scene(tmp_path)
    files["out"].mkdir()
    write_video(frames, files["out"] / "watch.mp4", 10)
    before = (files["out"] / "watch.mp4").read_bytes()
    with pytest.raises(UserError, match="would be overwritten"):
        watch(checkpoint, **{**files, "video": files["out"] / "watch.mp4"})
    assert (files["out"] / "watch.mp4").read_bytes() == before


def test_clips_that_do_not_fit_are_refused(checkpoint, tmp_path):
    files, _ = scene(tmp_path, 9, dim=3)
    with pytest.raises(UserError, match="have 3 numbers, the model takes 2"):
        watch(checkpoint, **files)
    np.save(files["actions"], np.zeros((7, 2)))
    with pytest.raises(UserError, match="7 actions for 9 frames"):
        watch(checkpoint, **files)
    with pytest.raises(UserError, match="9 frames, too few for frameskip 9"):
        read_clip(files["video"], files["actions"], 9)


def test_a_score_that_is_not_finite_is_refused(tiny_model, tmp_path):
    files, _ = scene(tmp_path, 9)
    with pytest.raises(UserError, match="NaN or infinite"):
        watch_with(tiny_model, lambda pixels, actions: Judged(np.full(4, np.nan), None), **files)
    assert not list(files["out"].iterdir())

import io
import sys

import av
import numpy as np
import pytest
from PIL import Image

from lewm.datasets.video import (
    actions_between,
    frames_of,
    is_lossless,
    read_actions,
    read_frames,
    write_video,
)
from lewm.errors import UserError


def moving_square(num=12, h=48, w=64):
    frames = np.full((num, h, w, 3), 230, dtype=np.uint8)
    for t in range(num):
        frames[t, 10:26, 2 + 3 * t : 18 + 3 * t] = (200, 30 + 10 * t, 40)
    return frames


def write_images(frames, folder, suffix=".png", names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{names[i] if names else f'{i:04d}'}{suffix}")
    return folder


def test_images_are_read_by_their_numbers_and_not_by_their_letters(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)
    folder = write_images(frames, tmp_path / "a", names=[f"frame{i}" for i in range(12)])  # 10 and 11 before 2
    assert np.array_equal(read_frames(folder), frames)
    assert is_lossless(folder)


def test_files_that_are_no_images_and_hidden_ones_are_passed_over(tmp_path):
    frames = moving_square(3)
    folder = write_images(frames, tmp_path / "a")
    (folder / "notes.txt").write_text("x")
    (folder / "._0001.png").write_bytes(b"left by another system")
    assert np.array_equal(read_frames(folder), frames)


def test_grey_and_transparent_images_become_three_channels(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])).save(tmp_path / "1.png")
    assert (read_frames(tmp_path) == grey[None, :, :, None]).all()


def test_images_of_16_bits_are_refused_and_not_clipped_to_white(tmp_path):
    Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        read_frames(tmp_path)


def test_two_sequences_in_one_folder_are_not_interleaved(tmp_path):
    write_images(moving_square(3), tmp_path)
    write_images(moving_square(3), tmp_path, ".jpg")
    with pytest.raises(UserError, match="PNG and JPEG"):
        read_frames(tmp_path)


def test_jpegs_are_read_within_their_loss(tmp_path):
    folder = write_images(moving_square(3), tmp_path / "a", ".JPG")
    assert np.abs(read_frames(folder).astype(int) - moving_square(3)).mean() < 3
    assert not is_lossless(folder)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_videos_come_back_within_the_error_of_their_codec(tmp_path, suffix, codec, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {codec})
    frames, path = moving_square(), tmp_path / f"v{suffix}"
    write_video(frames, path, 12.5)
    back = read_frames(path)
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).mean() < 3
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, float(stream.average_rate)) == (
            "h264" if codec == "libx264" else codec,
            12.5,
        )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not is_lossless(path)


def test_a_name_with_a_colon_or_a_percent_sign_is_a_name_and_no_address(tmp_path):
    write_video(moving_square(4), tmp_path / "take 1:2 %03d.mp4", 10)
    assert len(read_frames(tmp_path / "take 1:2 %03d.mp4")) == 4


def test_odd_sizes_are_padded_with_their_border(tmp_path):
    frames = moving_square(4, 47, 63)
    write_video(frames, tmp_path / "v.mp4", 10)
    back = read_frames(tmp_path / "v.mp4").astype(int)
    assert back.shape == (4, 48, 64, 3)
    assert np.abs(back[:, :47, :63] - frames).mean() < 3
    assert np.abs(back[:, 47] - back[:, 46]).max() < 20


def test_gifs_keep_equal_frames_that_their_writer_joins(tmp_path):
    frames = moving_square(6)[[0, 0, 1, 2, 2, 2, 3, 4, 5, 5]]
    write_video(frames, tmp_path / "v.gif", 15)
    with Image.open(tmp_path / "v.gif") as image:
        assert getattr(image, "n_frames") == 6  # noqa: B009
    back = read_frames(tmp_path / "v.gif")
    assert back.shape == frames.shape and np.abs(back.astype(int) - frames).mean() < 3


def test_gifs_need_no_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    write_video(moving_square(3), tmp_path / "v.gif", 10)
    assert len(read_frames(tmp_path / "v.gif")) == 3


def test_the_missing_extra_is_named_for_reading_and_writing(tmp_path, monkeypatch):
    write_video(moving_square(3), tmp_path / "v.mp4", 10)
    monkeypatch.setitem(sys.modules, "av", None)
    for attempt in (
        lambda: read_frames(tmp_path / "v.mp4"),
        lambda: write_video(moving_square(3), tmp_path / "w.mp4", 10),
    ):
        with pytest.raises(UserError, match=r"pip install 'lewm\[video\]'"):
            attempt()
    assert not (tmp_path / "w.mp4").exists()


def test_frames_are_written_as_they_come_and_nothing_is_left_of_a_failure(tmp_path):
    def frames():
        yield from moving_square(3)
        raise RuntimeError("the model failed")

    write_video(moving_square(2), tmp_path / "v.mp4", 10)
    before = (tmp_path / "v.mp4").read_bytes()
    with pytest.raises(RuntimeError, match="the model failed"):
        write_video(frames(), tmp_path / "v.mp4", 10)
    assert (tmp_path / "v.mp4").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("frames", "name", "fps", "match"),
    [
        ([], "v.mp4", 10, "no frames"),
        ([], "v.gif", 10, "no frames"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "v.mp4", 10, "one size"),
        (moving_square(2), "v.webp", 10, "written are .mp4"),
        (moving_square(2), "v.mp4", 0, "fps is 0"),
        (moving_square(2), "v.mp4", float("nan"), "fps is nan"),
        (moving_square(2), "missing/v.mp4", 10, "cannot write"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, frames, name, fps, match):
    with pytest.raises(UserError, match=match) as caught:
        write_video(frames, tmp_path / name, fps)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def damage(path):
    """Write a video of which 3000 bytes are lost."""
    ground = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_video((np.roll(ground, i, axis=0) for i in range(40)), path, 10)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 3000] = bytes(3000)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_damaged_video_is_refused_and_not_read_in_part(tmp_path, suffix):
    damage(tmp_path / f"v{suffix}")
    with pytest.raises(UserError, match="not a readable video") as caught:
        read_frames(tmp_path / f"v{suffix}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_truncated_or_empty_video_is_refused(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    write_video(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), path, 10)
    content = path.read_bytes()
    for part in (content[: len(content) // 2], b"", b"no video at all"):
        path.write_bytes(part)
        with pytest.raises(UserError, match="not a readable video"):
            read_frames(path)


def test_a_video_whose_notes_are_no_text_is_read_and_one_of_an_unknown_codec_is_refused(tmp_path):
    write_video(moving_square(), tmp_path / "clip.mp4", fps=10)
    whole, frames = (tmp_path / "clip.mp4").read_bytes(), read_frames(tmp_path / "clip.mp4")
    assert b"Lavf" in whole
    (tmp_path / "notes.mp4").write_bytes(whole.replace(b"Lavf", b"\xeb\x83\xff\xfe"))
    assert np.array_equal(read_frames(tmp_path / "notes.mp4"), frames)
    with av.open(tmp_path / "clip.mp4") as container:
        codec = container.streams.video[0].codec_context.codec_tag.encode()
    (tmp_path / "codec.mp4").write_bytes(whole.replace(codec, b"zzzz"))
    with pytest.raises(UserError, match=r"not a readable video: .*codec.mp4 \(of an unknown codec\)"):
        read_frames(tmp_path / "codec.mp4")


def test_a_file_with_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="sound only"):
        read_frames(tmp_path / "v.mkv")


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "v.txt").write_text("x")
    mixed = write_images([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], tmp_path / "mixed")
    broken = write_images(moving_square(2), tmp_path / "broken")
    whole = (broken / "0001.png").read_bytes()
    (broken / "0001.png").write_bytes(whole[: len(whole) // 2])
    cases = {
        tmp_path / "empty": "no frames in",
        tmp_path / "v.txt": "no video by its name",
        tmp_path / "absent.mp4": "no such video",
        mixed: "frame 1 of .* is 4 x 5, the first is 4 x 4",
        broken: "not a readable image",
    }
    for path, match in cases.items():
        with pytest.raises(UserError, match=match) as caught:
            read_frames(path)
        assert "\n" not in str(caught.value)


def test_frames_are_read_one_by_one(tmp_path):
    frames = write_images(moving_square(3), tmp_path / "a")
    (frames / "0002.png").write_bytes(b"")
    found = frames_of(frames)
    assert np.array_equal(next(found), moving_square(1)[0])  # the last, broken one has not been looked at


# Actions

ACTIONS = np.array([[0.5, -1.25], [3.0, 1e-7], [0.1, 2.0]], dtype=np.float32)


def saved(folder, text, name="a.csv"):
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


@pytest.mark.parametrize("header", ["", "x,y\n", "# x,y\n", "\ufeffx,y\n", "\n"])
def test_a_table_with_or_without_a_header_comes_back_exactly(tmp_path, header):
    rows = "".join(",".join(repr(float(x)) for x in row) + "\r\n" for row in ACTIONS)
    found = read_actions(saved(tmp_path, header + rows + "\n"))
    assert found.dtype == np.float32 and np.array_equal(found, ACTIONS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_an_array_comes_back_exactly(tmp_path, dtype):
    values = ACTIONS.astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values[:, 0])
    assert np.array_equal(read_actions(tmp_path / "a.npy"), values.astype(np.float32))
    assert np.array_equal(read_actions(tmp_path / "b.npy"), values[:, :1].astype(np.float32))


def test_numbers_of_columns_are_not_taken_for_the_first_action(tmp_path):
    with pytest.raises(UserError, match=r"line 1 of .*, 0,1, may be actions or numbers of columns"):
        read_actions(saved(tmp_path, "0,1\n0.5,0.25\n0.1,0.2\n"))
    assert len(read_actions(saved(tmp_path, "0.0,1.0\n0.5,0.25\n"))) == 2
    assert len(read_actions(saved(tmp_path, "0,1\n1,0\n"))) == 2  # whole numbers throughout: actions


def test_pickled_arrays_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable array of numbers"):
        read_actions(tmp_path / "a.npy")


def test_the_last_action_alone_may_be_missing(tmp_path):
    rows = np.array([[1.0], [2.0], [np.nan]])
    np.save(tmp_path / "a.npy", rows)
    found = read_actions(tmp_path / "a.npy")
    assert actions_between(found, 3, tmp_path / "a.npy").tolist() == [[1], [2]]
    with pytest.raises(UserError, match=r"action 2 of .* is \[nan\]"):
        actions_between(found, 4, tmp_path / "a.npy")  # here it leads to the last frame
    np.save(tmp_path / "a.npy", rows[::-1])
    with pytest.raises(UserError, match=r"action 0 of .* is \[nan\]"):
        read_actions(tmp_path / "a.npy")


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6])
def test_actions_are_as_many_as_frames_or_one_less(tmp_path, num_frames):
    with pytest.raises(UserError, match=f"3 actions for {num_frames} frames"):
        actions_between(np.zeros((3, 2), np.float32), num_frames, tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1,2\n3\n", "line 2 of .* has 1 numbers, line 1 has 2"),
        ("x,y\n1,2\n\n3,4,5\n", "line 4 of .* has 3 numbers, line 2 has 2"),
        ("x,y\n1,2\n3,\n", "line 3 of .* no number"),
        ("x;y\n1;2\n", "line 2 of .*commas separate"),
        ("x,y\n", "no actions"),
        ("", "no actions"),
        ("1,inf\n2,3\n", "action 0"),
        ("1,1e300\n2,3\n", "action 0"),
        (b"\xff\xfe1\x00", "not a readable table"),
    ],
)
def test_tables_that_are_not_actions_are_refused_in_one_line(tmp_path, text, match):
    with pytest.raises(UserError, match=match) as caught:
        read_actions(saved(tmp_path, text))
    assert "\n" not in str(caught.value)


def several():
    file = io.BytesIO()
    np.savez(file, a=ACTIONS, b=ACTIONS)
    return file.getvalue()


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a readable array"),
        (b"text", "not a readable array"),
        (array(ACTIONS)[:-3], "not a readable array"),
        (several(), "several arrays"),
        (array(np.zeros((2, 3, 4))), "shape \\(n, a\\)"),
        (array(np.array(["a", "b"])), "must be numbers"),
        (array(np.array([1j])), "must be numbers"),
        (array(np.zeros((0, 2))), "no actions"),
    ],
)
def test_arrays_that_are_not_actions_are_refused_in_one_line(tmp_path, content, match):
    with pytest.raises(UserError, match=match) as caught:
        read_actions(saved(tmp_path, content, "a.npy"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "match"), [("a.json", "read from .npy and .csv"), ("a.csv", "cannot read actions")])
def test_other_kinds_of_files_and_absent_ones_are_refused(tmp_path, name, match):
    with pytest.raises(UserError, match=match):
        read_actions(tmp_path / name)

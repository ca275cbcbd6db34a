"""What is easily taken for something else when data sets of other tools are read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from lewm.cli import main
from lewm.datasets.foreign import Choice, open_foreign
from lewm.datasets.schema import open_source
from lewm.datasets.video import write_video

HERE = Path(__file__).parent / "data" / "foreign"
sys.path.append(str(HERE))
from episodes import LENGTHS, episodes  # noqa: E402

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
FILM = f"videos/chunk-000/{FRONT}/episode_000000.mp4"


@pytest.fixture
def lerobot(tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(HERE / "lerobot_v21", tmp_path / "lerobot"))


def write_npz(path, **arrays):
    path.mkdir(exist_ok=True)
    np.savez(path / f"{len(list(path.iterdir()))}.npz", **arrays)
    return path


def test_of_several_cameras_the_others_may_be_missing(lerobot):
    shutil.rmtree(lerobot / "videos")
    np.testing.assert_array_equal(all_frames(open_foreign(lerobot, Choice(camera=WRIST))), next(episodes(64))[0])


def test_version_2_0_which_keeps_its_statistics_elsewhere_is_read_alike(lerobot):
    (lerobot / "meta/episodes_stats.jsonl").unlink()
    about = json.loads((lerobot / "meta/info.json").read_text())
    (lerobot / "meta/info.json").write_text(json.dumps(about | {"codebase_version": "v2.0"}))
    found = open_foreign(lerobot, Choice(camera=WRIST))
    for e, (frames, actions, _) in enumerate(episodes(64)):
        np.testing.assert_array_equal(all_frames(found, e), frames)
        np.testing.assert_array_equal(found.actions(e), actions)


def all_frames(source, episode=0):
    return source.frames(episode, np.arange(source.lengths[episode]))


def test_at_fewer_frames_a_second_the_actions_between_stand_side_by_side(tmp_path):
    argv = [str(HERE / "lerobot_v30"), str(tmp_path / "out"), f"--camera={WRIST}", "--fps=5"]
    assert main(["convert", *argv]) == 0
    shards = open_source(tmp_path / "out")
    assert shards.action_dim == 4
    for e, (frames, actions, states) in enumerate(episodes(64)):
        np.testing.assert_array_equal(all_frames(shards, e), frames[::2])
        np.testing.assert_array_equal(shards.column("observation.state", e), states[::2])
        for t, row in enumerate(shards.actions(e)[:-1]):
            np.testing.assert_array_equal(row, np.concatenate([actions[2 * t], actions[2 * t + 1]]))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["provenance"]["rows_per_frame"] == 2


@pytest.mark.parametrize(
    ("fps", "said"), [("3", "give a whole part"), ("20", "give a whole part"), ("0", "whole part")]
)
def test_a_rate_that_would_need_new_frames_is_refused(fps, said, tmp_path, capsys):
    argv = [str(HERE / "lerobot_v30"), str(tmp_path / "out"), f"--camera={WRIST}", f"--fps={fps}"]
    assert main(["convert", *argv]) == 2
    assert said in capsys.readouterr().err


def test_of_a_video_with_more_frames_than_rows_those_of_the_rows_times_are_taken(lerobot):
    truth = next(episodes(64))[0]
    between = np.full_like(truth, 128)
    write_video(np.stack([truth, between], axis=1).reshape(-1, 64, 64, 3), lerobot / FILM, fps=20)
    found = all_frames(open_foreign(lerobot, Choice(camera=FRONT))).astype(int)
    assert np.abs(found - truth).mean(axis=(1, 2, 3)).max() < 6


def test_a_video_whose_frames_lie_between_the_rows_is_refused(lerobot, tmp_path, capsys):
    write_video(next(episodes(64))[0], lerobot / FILM, fps=7)
    assert main(["convert", str(lerobot), str(tmp_path / "out"), f"--camera={FRONT}"]) == 2
    assert "video and table do not belong together" in capsys.readouterr().err


def test_columns_that_together_are_the_action_stand_in_the_order_that_was_asked(tmp_path):
    a, b, grip = np.ones((5, 2)), np.full(5, 2, np.int64), np.zeros(5, bool)
    write_npz(tmp_path / "set", pixels=np.zeros((5, 8, 8, 3), np.uint8), a=a, b=b, grip=grip)
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out"), "--action=[b, grip, a]"]) == 0
    np.testing.assert_array_equal(open_source(tmp_path / "out").actions(0), np.tile([2, 0, 1, 1], (5, 1)))


def test_pictures_are_in_the_order_of_their_numbers_and_episodes_too(tmp_path):
    for key, base in (("2", 0), ("10", 100)):
        (tmp_path / "set" / key).mkdir(parents=True)
        np.savez(tmp_path / "set" / f"{key}.npz", action=np.zeros((12, 1)))
        for i in range(12):
            Image.fromarray(np.full((8, 8), base + i, np.uint8)).save(tmp_path / "set" / key / f"{i}.png")
    source = open_foreign(tmp_path / "set", Choice())
    assert source.keys == ["2", "10"] and source.lossy is None
    assert all_frames(source)[:, 0, 0, 0].tolist() == list(range(12))
    assert source.frames(1, np.array([3, 1]))[:, 0, 0, 2].tolist() == [103, 101]


def test_grey_frames_stay_grey_and_those_with_transparency_are_refused(tmp_path, capsys):
    write_npz(tmp_path / "grey", pixels=np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8, 1), action=np.zeros((2, 1)))
    assert open_foreign(tmp_path / "grey", Choice()).frame_shape == (8, 8, 1)
    write_npz(tmp_path / "rgba", pixels=np.zeros((2, 8, 8, 4), np.uint8), action=np.zeros((2, 1)))
    assert main(["convert", str(tmp_path / "rgba"), str(tmp_path / "out")]) == 2
    assert "has no frames" in capsys.readouterr().err


def test_channels_first_are_turned_and_small_matrices_are_no_pictures(tmp_path):
    frames = np.arange(2 * 3 * 8 * 12, dtype=np.uint8).reshape(2, 3, 8, 12)
    turns = np.zeros((2, 3, 3, 3), np.float32)
    write_npz(tmp_path / "set", pixels=frames, action=np.zeros((2, 1)), turns=turns)
    source = open_foreign(tmp_path / "set", Choice())
    np.testing.assert_array_equal(all_frames(source), frames.transpose(0, 2, 3, 1))
    assert source.columns["turns"].shape == (3, 3, 3)


@pytest.mark.parametrize("values", [np.eye(8), np.eye(8) / 2, np.eye(8) * 300, np.eye(8) - 1, np.eye(8) * np.nan])
def test_floats_that_may_be_scaled_are_refused(values, tmp_path, capsys):
    pixels = np.broadcast_to(values[None, :, :, None], (2, 8, 8, 3)).astype(np.float32)
    write_npz(tmp_path / "set", pixels=pixels, action=np.zeros((2, 1)))
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out")]) == 2
    assert "scale them back" in capsys.readouterr().err


def test_words_and_truth_values_are_kept_and_what_shards_cannot_hold_is_named(tmp_path, capsys):
    more = {"done": np.array([False, True]), "task": np.array(["go", "stop"]), "phase": np.ones(2, complex)}
    write_npz(tmp_path / "set", pixels=np.zeros((2, 8, 8, 3), np.uint8), action=np.zeros((2, 1)), **more)
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out")]) == 0
    assert "neither numbers nor words: phase" in capsys.readouterr().out
    shards = open_source(tmp_path / "out")
    assert shards.column("done", 0).tolist() == [False, True] and shards.column("task", 0).tolist() == ["go", "stop"]


def test_a_folder_of_shards_is_not_taken_for_one_of_npz_files(tmp_path):
    write_npz(tmp_path / "set", pixels=np.zeros((2, 16, 16, 3), np.uint8), action=np.zeros((2, 1)))
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "one")]) == 0
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "two"), "--image_size=8"]) == 0
    assert open_source(tmp_path / "two").frame_shape == (8, 8, 3)


def test_frames_are_resized_by_averaging_whatever_they_come_from(tmp_path):
    argv = [str(HERE / "lerobot_v21"), str(tmp_path / "out"), f"--camera={WRIST}", "--image_size=16"]
    assert main(["convert", *argv]) == 0
    truth = next(episodes(64))[0].reshape(12, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(all_frames(open_source(tmp_path / "out")) - truth).max() <= 0.5


def test_an_interrupted_conversion_goes_on_only_with_the_camera_that_it_began_with(tmp_path, capsys):
    begun = ["convert", str(HERE / "lerobot_v21"), str(tmp_path / "out"), "--shard_mb=1"]
    assert main([*begun, f"--camera={WRIST}"]) == 0
    (tmp_path / "out" / "manifest.json").rename(tmp_path / "manifest.json")
    assert main([*begun, f"--camera={WRIST}", "--resume"]) == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "manifest.json").read_bytes()
    assert main([*begun, f"--camera={FRONT}", "--resume"]) == 2
    assert "another source or setting" in capsys.readouterr().err


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_what_h5py_itself_compresses_is_read(compression, tmp_path):
    frames, actions, _ = next(episodes())
    columns = {"pixels": frames, "action": actions, "ep_len": np.array([12]), "ep_offset": np.array([0])}
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression=compression)
    assert main(["convert", str(tmp_path / "packed.h5"), str(tmp_path / "out")]) == 0
    np.testing.assert_array_equal(all_frames(open_source(tmp_path / "out")), frames)


def test_a_folder_of_no_layout_is_refused_with_the_layouts_there_are(tmp_path, capsys):
    assert main(["convert", str(HERE), str(tmp_path / "out")]) == 2
    assert "is no data set of lerobot, lance, zarr, minari, dino_wm, npz, and no shards" in capsys.readouterr().err


def test_an_episode_of_one_frame_is_kept(tmp_path):
    write_npz(tmp_path / "set", pixels=np.ones((1, 8, 8, 3), np.uint8), action=np.zeros((0, 1)))
    assert open_foreign(tmp_path / "set", Choice()).lengths.tolist() == [1]


@pytest.mark.parametrize("version", [2, 3])
def test_replay_buffers_of_both_formats_and_in_zip_files_are_read(version, tmp_path):
    frames, actions, _ = (np.concatenate(parts) for parts in zip(*episodes(), strict=True))
    with zarr.storage.ZipStore(tmp_path / "set.zarr.zip", mode="w") as store:
        root = zarr.open_group(store, mode="w", zarr_format=version)
        for name, values in (("data/img", frames), ("data/action", actions), ("meta/episode_ends", np.cumsum(LENGTHS))):
            root.create_array(name, data=values)
    source = open_foreign(tmp_path / "set.zarr.zip", Choice())
    for e, (truth, _, _) in enumerate(episodes()):
        np.testing.assert_array_equal(all_frames(source, e), truth)

"""Data sets of other tools, converted: frames, actions, keys, and what is refused."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from lewm.cli import main
from lewm.datasets.foreign import Choice, open_foreign
from lewm.datasets.schema import open_source

LENGTHS = (9, 7, 12)


def episodes(seed: int = 0):
    """Frames (t, 8, 8, 3), actions (t, 2) and states (t, 3) of each episode."""
    rng = np.random.default_rng(seed)
    for t in LENGTHS:
        frames = rng.integers(0, 256, (t, 8, 8, 3), dtype=np.uint8)
        yield frames, rng.normal(size=(t, 2)).astype(np.float32), rng.normal(size=(t, 3)).astype(np.float32)


def write_zarr(path, images=lambda x: x):
    root = zarr.open_group(path, mode="w", zarr_format=2)
    frames, actions, states = (np.concatenate(parts) for parts in zip(*episodes(), strict=True))
    for name, values in (("data/img", images(frames)), ("data/action", actions), ("data/state", states)):
        root.create_array(name, data=values)
    root.create_array("meta/episode_ends", data=np.cumsum(LENGTHS))
    return path


def write_minari(path, jpeg: bool = False):
    (path / "data").mkdir(parents=True)
    (path / "data" / "metadata.json").write_text(json.dumps({"dataset_id": "toy/env-v0"}))
    with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
        for e, (frames, actions, states) in enumerate(episodes()):
            group = file.create_group(f"episode_{e}")
            if jpeg:
                rows = file.create_dataset(f"episode_{e}/observations/image", (len(frames),), h5py.vlen_dtype(np.uint8))
                for i, frame in enumerate(frames):
                    buffer = io.BytesIO()
                    Image.fromarray(frame).save(buffer, format="JPEG")
                    rows[i] = np.frombuffer(buffer.getvalue(), np.uint8)
            else:
                group["observations/image"] = frames
            group["observations/state"] = states
            group["actions"], group["rewards"] = actions[:-1], np.arange(len(frames) - 1, dtype=np.float32)
            group["terminations"] = np.zeros(len(frames) - 1, bool)
    return path


def write_npz(path, pictures: bool = False):
    path.mkdir()
    for e, (frames, actions, states) in enumerate(episodes()):
        more = {} if pictures else {"pixels": frames}
        np.savez(path / f"{e:03d}.npz", action=actions[:-1], state=states, **more)
        if pictures:
            (path / f"{e:03d}").mkdir()
            for i, frame in enumerate(frames):
                Image.fromarray(frame).save(path / f"{e:03d}" / f"{i:04d}.png")
    return path


WRITERS = {
    "zarr": (write_zarr, "state"),
    "minari": (write_minari, "observations/state"),
    "npz": (write_npz, "state"),
    "pictures": (lambda path: write_npz(path, pictures=True), "state"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_frames_actions_and_states_are_those_of_the_source(name, tmp_path):
    write, state = WRITERS[name]
    assert main(["convert", str(write(tmp_path / "source")), str(tmp_path / "out")]) == 0
    shards = open_source(tmp_path / "out")
    assert tuple(shards.lengths) == LENGTHS and len(set(shards.keys)) == len(LENGTHS)
    for e, (frames, actions, states) in enumerate(episodes()):
        np.testing.assert_array_equal(shards.frames(e, np.arange(LENGTHS[e])), frames)
        np.testing.assert_array_equal(shards.actions(e)[:-1], actions[:-1])
        np.testing.assert_array_equal(shards.column(state, e), states)


def test_pictures_stored_as_jpeg_are_within_its_error_and_said_to_be_lossy(tmp_path, capsys):
    source = write_minari(tmp_path / "source", jpeg=True)
    assert main(["convert", str(source), str(tmp_path / "out")]) == 0
    assert "jpeg, which is lossy" in capsys.readouterr().out
    found = open_foreign(source, Choice())
    shards = open_source(tmp_path / "out")
    np.testing.assert_array_equal(shards.frames(1, np.arange(7)), found.frames(1, np.arange(7)))


def test_whole_floats_and_channels_first_are_frames_and_scaled_ones_are_refused(tmp_path, capsys):
    whole = write_zarr(tmp_path / "whole", lambda x: x.astype(np.float32).transpose(0, 3, 1, 2))
    assert main(["convert", str(whole), str(tmp_path / "out")]) == 0
    first = next(episodes())[0]
    np.testing.assert_array_equal(open_source(tmp_path / "out").frames(0, np.arange(9)), first)
    scaled = write_zarr(tmp_path / "scaled", lambda x: x / np.float32(255))
    assert main(["convert", str(scaled), str(tmp_path / "no")]) == 2
    assert "scale them back" in capsys.readouterr().err and not (tmp_path / "no").exists()

"""Other tools' data sets, damaged or not as they should be: one line, exit code 2, nothing written."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from lewm.cli import main

HERE = Path(__file__).parent / "data" / "foreign"
FRONT, WRIST = "--camera=observation.images.front", "--camera=observation.images.wrist"
FILM = "videos/chunk-000/observation.images.front/episode_{:06d}.mp4"
TABLE = "data/chunk-000/episode_{:06d}.parquet"


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop_last_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def number_twice(path):
    path.write_text(
        path.read_text().replace('"episode_index": 2', '"episode_index": 1').replace('length": 15', 'length": 9')
    )


def rezarr(path, name, values, **how):
    import zarr

    zarr.open_group(path, mode="a").create_array(name, data=values, overwrite=True, **how)


def pickled_chunks(path):
    pickled = {"id": "pickle", "protocol": 5}
    words = {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}]}  # other types zarr itself refuses
    change(path / "data/state/.zarray", **words, compressor=pickled, shape=[60], chunks=[25])
    for number in range(3):
        (path / "data/state" / str(number)).write_bytes(pickle.dumps(Hostile(path.parent / "ran")))


def hostile_tensor(path):
    torch.save(Hostile(path.parent / "ran"), path / "states.pth")


def longer(path):
    torch.save(torch.zeros(5, 9, 2), path / "rel_actions.pth")


DAMAGED = [
    ("lerobot_v21", FRONT, lambda p: cut(p / TABLE.format(2)), "not a readable parquet file"),
    ("lerobot_v21", FRONT, lambda p: (p / TABLE.format(2)).unlink(), "not a readable parquet file"),
    ("lerobot_v21", FRONT, lambda p: cut(p / FILM.format(3)), "not a readable video"),
    ("lerobot_v21", FRONT, lambda p: (p / FILM.format(3)).unlink(), "not a readable video"),
    ("lerobot_v21", FRONT, lambda p: shutil.copy(p / FILM.format(1), p / FILM.format(2)), "no frame for 6 of 15 rows"),
    ("lerobot_v21", WRIST, lambda p: shutil.copy(p / TABLE.format(1), p / TABLE.format(2)), "has 0 rows of episode 2"),
    ("lerobot_v21", WRIST, lambda p: drop_last_line(p / "meta/episodes.jsonl"), "lists 4 episodes of 46 frames"),
    ("lerobot_v21", WRIST, lambda p: cut(p / "meta/episodes.jsonl"), "not a readable list of episodes"),
    ("lerobot_v21", WRIST, lambda p: change(p / "meta/info.json", codebase_version="v1.6"), "version v1.6; v2 and v3"),
    ("lerobot_v21", FRONT, lambda p: change(p / "meta/info.json", fps=20), "20 frames a second put it at"),
    ("lerobot_v21", WRIST, lambda p: cut(p / "meta/info.json"), "not readable JSON"),
    ("lerobot_v21", WRIST, lambda p: change(p / "meta/info.json", features={}), "no frames in"),
    ("lerobot_v21", "", lambda p: None, "has 2 cameras; say which with --camera: observation.images.front, "),
    ("lerobot_v21", "--camera=top", lambda p: None, "no camera 'top'"),
    ("lerobot_v30", FRONT, lambda p: cut(next(p.glob("data/*/*.parquet"))), "not a readable parquet file"),
    ("lerobot_v30", FRONT, lambda p: cut(next(p.glob("videos/*/*/*.mp4"))), "not a readable video"),
    ("lerobot_v30", FRONT, lambda p: shutil.rmtree(p / "meta/episodes"), "lists 0 episodes of 0 frames"),
    ("lerobot_v30", FRONT, lambda p: change(p / "meta/info.json", fps=20), "has 12 rows at 20 a second, and 1.200 s"),
    ("zarr2.zarr", "", lambda p: (p / "data/img/1.0.0.0").unlink(), "1 of 3 chunks of /data/img"),
    ("zarr2.zarr", "", lambda p: (p / "data/action/1.0").unlink(), "1 of 3 chunks of /data/action"),
    ("zarr2.zarr", "", lambda p: cut(p / "data/img/1.0.0.0"), "/data/img in "),
    ("zarr2.zarr", "", lambda p: cut(p / "data/img/.zarray"), "not a readable zarr store"),
    ("zarr2.zarr", "", lambda p: shutil.rmtree(p / "data/action"), "does not say what its actions are"),
    ("zarr2.zarr", "", lambda p: rezarr(p, "meta/episode_ends", np.array([12, 61])), "end at row 60, not 61"),
    ("zarr2.zarr", "", lambda p: rezarr(p, "meta/episode_ends", np.array([12, 12, 60])), "must rise"),
    ("zarr2.zarr", "", lambda p: rezarr(p, "data/state", np.zeros((59, 3))), "others have"),
    ("zarr2.zarr", "", pickled_chunks, "pickled, which may run code"),
    ("zarr2.zarr", "--fps=5", lambda p: None, "does not say its frames a second"),
    ("minari", "", lambda p: cut(p / "data/main_data.hdf5"), "not a readable HDF5 file"),
    ("minari", "", lambda p: (p / "data/main_data.hdf5").unlink(), "not those in Arrow"),
    (
        "minari",
        "",
        lambda p: change(p / "data/metadata.json", total_episodes=7),
        "holds 5 episodes, metadata.json says 7",
    ),
    ("dino_wm", "", lambda p: (p / "obses/episode_002.mp4").unlink(), "no frames of episode 2"),
    ("dino_wm", "", lambda p: (p / "obses/episode_004.mp4").unlink(), "they do not belong together"),
    ("dino_wm", "", lambda p: cut(p / "obses/episode_002.mp4"), "sound only, or was cut off"),
    ("dino_wm", "", lambda p: cut(p / "rel_actions.pth"), "not a readable tensor"),
    ("dino_wm", "", hostile_tensor, "nothing in it was run"),
    ("dino_wm", "", longer, "they do not belong together"),
]


@pytest.mark.parametrize(("name", "flag", "damage", "said"), DAMAGED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_damaged_or_not_understood_is_refused_before_anything_is_written(
    name, flag, damage, said, tmp_path, capfd
):
    source = tmp_path / name
    shutil.copytree(HERE / name, source)
    damage(source)
    assert main(["convert", str(source), str(tmp_path / "out"), *([flag] if flag else [])]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line and str(source) in line
    assert {p.name for p in tmp_path.iterdir()} == {name}


def test_two_episodes_of_one_number_are_refused(tmp_path, capfd):
    shutil.copytree(HERE / "lerobot_v21", tmp_path / "set")
    number_twice(tmp_path / "set" / "meta/episodes.jsonl")
    change(tmp_path / "set" / "meta/info.json", total_frames=54)
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out"), WRIST]) == 2
    assert "has 2 episodes 'set:1'" in capfd.readouterr().err


@pytest.mark.parametrize("part", ["data", "_versions"])
def test_a_damaged_lance_table_is_refused(part, tmp_path):
    source = tmp_path / "swm.lance"
    shutil.copytree(HERE / "swm.lance", source)
    for file in (source / part).iterdir():
        cut(file)
    argv = [
        sys.executable,
        "-m",
        "lewm",
        "convert",
        str(source),
        str(tmp_path / "out"),
    ]  # Lance's threads dislike forks
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(source) in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def write_npz(path, **changes):
    path.mkdir()
    for e, length in enumerate((9, 7)):
        arrays = {
            "pixels": np.zeros((length, 8, 8, 3), np.uint8),
            "action": np.zeros((length - 1, 2)),
            "x": np.ones(length),
        }
        np.savez(path / f"{e}.npz", **(arrays | (changes if e == 1 else {})))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": np.ones(6)}, "'x' of .*1.npz is of shape"),
        ({"action": np.zeros((9, 2))}, "'action' of"),
        ({"y": np.ones(7)}, "holds action, pixels, x, y; the first file action, pixels, x"),
        ({"x": np.array([{}] * 7)}, "nothing pickled is read"),
        ({"pixels": np.zeros((7, 16, 8, 3), np.uint8)}, "sizes must agree"),
        ({"pixels": np.zeros((0, 8, 8, 3), np.uint8), "action": np.zeros((0, 2)), "x": np.ones(0)}, "has no frames"),
        ({"action": np.full((6, 2), np.nan)}, "the action at step 0 of episode 1"),
    ],
)
def test_npz_files_that_disagree_are_refused(changes, said, tmp_path, capfd):
    write_npz(tmp_path / "set", **changes)
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out")]) == 2
    assert __import__("re").search(said, capfd.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_cut_npz_file_is_refused(tmp_path, capfd):
    write_npz(tmp_path / "set")
    cut(tmp_path / "set" / "1.npz")
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out")]) == 2
    assert "not a readable npz file" in capfd.readouterr().err


def deep():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("content", "said"), [(b"\x89PNG\r\n", "not a readable image"), (deep(), "more than 8 bits")])
def test_pictures_that_cannot_be_frames_are_refused(content, said, tmp_path, capfd):
    (tmp_path / "set" / "0").mkdir(parents=True)
    np.savez(tmp_path / "set" / "0.npz", action=np.zeros((1, 2)))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "set" / "0" / "0.png")
    (tmp_path / "set" / "0" / "1.png").write_bytes(content)
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "out")]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("zarr2.zarr", "zarr", "zarr"),
        ("lerobot_v30", "pyarrow", "lerobot"),
        ("lerobot_v21", "av", "video"),
        ("dino_wm", "av", "video"),
        ("swm.lance", "lance", "lance"),
        ("swm_blosc.h5", "hdf5plugin", "hdf5"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    name, module, extra, monkeypatch, tmp_path, capfd
):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "hdf5plugin":  # it may have registered its filters before
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number < 256)
    flags = [FRONT] if "lerobot" in name else []
    assert main(["convert", str(HERE / name), str(tmp_path / "out"), *flags]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"pip install 'lewm[{extra}]'" in line
    assert not (tmp_path / "out").exists()

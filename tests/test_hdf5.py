"""Flat HDF5 files."""

import pickle

import h5py
import numpy as np
import pytest
from conftest import flat_columns

from lewm.datasets.hdf5 import HDF5Source
from lewm.datasets.schema import open_source
from lewm.errors import UserError


def test_frames_actions_and_nested_columns_come_from_the_right_rows(flat_file):
    source = open_source(flat_file)
    offset = int(source.lengths[:4].sum())
    assert source.frames(4, np.array([0, 5, 2]))[:, 0, 0, 0].tolist() == [(offset + r) % 256 for r in (0, 5, 2)]
    assert source.actions(4)[:, 0].tolist() == pytest.approx([(offset + r) / 100 for r in range(source.lengths[4])])
    assert source.column("proprio/pos", 4)[0, 0] == offset
    assert source.columns["state"].dtype == np.float64
    assert source.actions(0).dtype == np.float32


def test_the_key_is_the_id_or_else_name_and_number(write_flat):
    columns = flat_columns([4, 5])
    assert HDF5Source(write_flat(columns, "a.h5")).keys == [str(10**15), str(7919 + 10**15)]
    del columns["id"]
    assert HDF5Source(write_flat(columns, "b.h5")).keys == ["b:0", "b:1"]


def test_the_handle_is_not_pickled_and_opens_again(flat_file):
    source = HDF5Source(flat_file)
    again = pickle.loads(pickle.dumps(source))
    assert (again.frames(3, np.arange(3)) == source.frames(3, np.arange(3))).all()


def test_a_last_action_may_be_nan_and_an_interior_one_is_refused_by_episode_and_step(write_flat):
    columns = flat_columns([6, 7])
    columns["action"][5] = np.nan
    assert np.isnan(HDF5Source(write_flat(columns, "last.h5")).actions(0)[-1]).all()
    columns["action"][6 + 3, 1] = np.nan
    with pytest.raises(UserError, match=r"step 3 of episode 1.*only the last row"):
        HDF5Source(write_flat(columns, "inner.h5"))


def test_a_missing_column_is_named_with_those_there_are(write_flat):
    columns = flat_columns([6])
    del columns["action"]
    with pytest.raises(UserError, match=r"no column 'action'.*state"):
        HDF5Source(write_flat(columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ep_offset": np.array([0, 5])}, "episode 1 should start at row 6, the file says 5"),
        ({"ep_len": np.array([6, 0])}, "one positive length"),
        ({"ep_len": np.array([6, 9])}, "has 13 rows, its episodes have 15"),
        ({"state": np.zeros((12, 2))}, "'state' .* has 12 rows"),
        ({"pixels": np.zeros((13, 16, 16, 3), dtype=np.float32)}, "must be uint8 frames"),
        ({"pixels": np.zeros((13, 768), dtype=np.uint8)}, "must be uint8 frames of one size"),
        ({"action": np.zeros((13, 2), dtype=bool)}, "must be numbers"),
        ({"ep_len": np.zeros(0, int), "ep_offset": np.zeros(0, int)}, "no episodes"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(write_flat, change, message):
    with pytest.raises(UserError, match=message):
        HDF5Source(write_flat(flat_columns([6, 7]) | change))


def test_ragged_frames_are_refused(write_flat):
    columns = flat_columns([3])
    del columns["pixels"]
    path = write_flat(columns)
    with h5py.File(path, "a") as file:
        ragged = file.create_dataset("pixels", (3,), dtype=h5py.vlen_dtype(np.uint8))
        ragged[:] = [np.zeros(n, dtype=np.uint8) for n in (4, 5, 6)]
    with pytest.raises(UserError, match="ragged"):
        HDF5Source(path)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"not an HDF5 file" * 100)
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        HDF5Source(path)


@pytest.mark.parametrize(
    "rows", [[], [5], [2, 3, 4, 5], [0, 5, 10, 15], [3, 4, 9, 10, 11, 2], [7, 7, 8, 6, 5], [15, 0]]
)
def test_rows_that_follow_one_another_or_do_not_are_the_same_frames(write_flat, rows):
    columns = flat_columns([16] * 3)
    found = HDF5Source(write_flat(columns)).frames(1, np.array(rows, dtype=np.int64))
    assert found.tobytes() == columns["pixels"][16:32][rows].tobytes()


@pytest.mark.parametrize("rows", [[9, 10, 11, 12], [1, 11, 12, 13], [11]])
def test_the_damaged_one_among_frames_that_follow_one_another_is_named(tmp_path, rows):
    columns = flat_columns([16] * 3)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        for name, values in columns.items():
            pixels = {"chunks": (1, *values.shape[1:]), "fletcher32": True} if name == "pixels" else {}
            file.create_dataset(name, data=values, **pixels)
        at = file["pixels"].id.get_chunk_info_by_coord((16 + 11, 0, 0, 0)).byte_offset
    with (tmp_path / "flat.h5").open("r+b") as file:
        file.seek(at + 100)
        file.write(b"damage")
    source = HDF5Source(tmp_path / "flat.h5")
    with pytest.raises(UserError, match=r"episode 1 \(.*\), frame 11 of .*flat.h5 cannot be read"):
        source.frames(1, np.array(rows))

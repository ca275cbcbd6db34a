"""Writing shards: what is refused, what survives an interruption."""

import numpy as np
import pytest

from lewm.datasets.convert import convert
from lewm.datasets.schema import open_source
from lewm.datasets.shard_writer import EpisodeWriter
from lewm.errors import UserError


def episode(length: int = 5, **changes: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    frames = np.zeros((length, 8, 8, 3), dtype=np.uint8)
    return frames, {"action": np.ones((length, 2), dtype=np.float32), "s": np.arange(length)} | changes


def test_an_interrupted_conversion_resumes_to_the_same_bytes(flat_file, tmp_path, monkeypatch):
    convert(flat_file, tmp_path / "whole", shard_bytes=100_000)
    real, calls = EpisodeWriter.add, []

    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        real(self, *args, **kwargs)

    monkeypatch.setattr(EpisodeWriter, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        convert(flat_file, tmp_path / "part", shard_bytes=100_000)
    assert not list((tmp_path / "part").glob("*manifest*"))
    assert not list((tmp_path / "part").glob(".*tmp"))
    assert list((tmp_path / "part").glob("*.tar"))
    with pytest.raises(UserError, match="add --resume"):
        convert(flat_file, tmp_path / "part", shard_bytes=100_000)
    convert(flat_file, tmp_path / "part", shard_bytes=100_000, resume=True)
    names = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "part").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes(), name


def test_resuming_with_another_source_is_refused(flat_file, write_flat, tmp_path):
    from conftest import flat_columns

    convert(flat_file, tmp_path / "out", shard_bytes=100_000)
    (tmp_path / "out" / "manifest.json").unlink()
    columns = flat_columns([9] * 40)
    columns["id"] += 1
    with pytest.raises(UserError, match="not the first episodes"):
        convert(write_flat(columns, "other.h5"), tmp_path / "out", resume=True)


def test_a_finished_conversion_is_not_taken_for_that_of_another_source(flat_file, write_flat, tmp_path):
    from conftest import flat_columns

    convert(flat_file, tmp_path / "out")
    convert(flat_file, tmp_path / "out", resume=True)
    with pytest.raises(UserError, match="another source"):
        convert(write_flat(flat_columns([5, 5]), "other.h5"), tmp_path / "out", resume=True)


def test_an_interrupted_conversion_does_not_go_on_from_other_content_under_the_same_keys(
    write_flat, tmp_path, monkeypatch
):
    from conftest import flat_columns

    columns = flat_columns([20] * 12)
    real = EpisodeWriter.add

    def dies(self, *args, **kwargs):
        if self.done == 9:
            raise KeyboardInterrupt
        real(self, *args, **kwargs)

    monkeypatch.setattr(EpisodeWriter, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        convert(write_flat(columns, "x.h5"), tmp_path / "out", shard_bytes=50_000)
    monkeypatch.setattr(EpisodeWriter, "add", real)
    changed = write_flat(columns | {"action": columns["action"] + 1}, "x.h5")
    with pytest.raises(UserError, match="another source"):
        convert(changed, tmp_path / "out", shard_bytes=50_000, resume=True)


def test_a_finished_data_set_is_never_overwritten(tmp_path):
    with EpisodeWriter(tmp_path / "out") as writer:
        writer.add(*episode(), key="a")
    with pytest.raises(UserError, match="already holds"):
        EpisodeWriter(tmp_path / "out")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ((np.zeros((5, 8, 9, 3), dtype=np.uint8), episode()[1]), "has frames"),
        (episode(action=np.ones((5, 3), dtype=np.float32)), "type of: action"),
        (episode(s=np.arange(5.0)), "type of: s"),
        (episode(extra=np.arange(5)), "type of: extra"),
        (episode(s=np.arange(4)), "'s' has 4 rows for 5 frames"),
        (episode(s=np.array([None] * 5)), "is object"),
        (episode(action=np.array([[1, np.nan]] + [[1, 1]] * 4, dtype=np.float32)), "step 0"),
        ((np.zeros((5, 8, 8, 3)), episode()[1]), "uint8"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_nothing_is_half_written(tmp_path, second, message):
    writer = EpisodeWriter(tmp_path / "out")
    with pytest.raises(UserError, match=message), writer:
        writer.add(*episode(), key="a")
        writer.add(*second, key="b")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="twice"), EpisodeWriter(tmp_path / "out") as writer:
        writer.add(*episode(), key="a")
        writer.add(*episode(), key="a")


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        EpisodeWriter(tmp_path / "file" / "out")


def test_frames_can_be_made_smaller_by_averaging(flat_file, tmp_path):
    convert(flat_file, tmp_path / "out", image_size=8)
    small, full = open_source(tmp_path / "out"), open_source(flat_file)
    frame = full.frames(2, np.array([0]))[0].reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(small.frames(2, np.array([0]))[0] - frame).max() <= 1  # rounded along each axis


def test_a_byte_that_changed_in_a_finished_shard_is_not_taken_over(flat_file, tmp_path):
    convert(flat_file, tmp_path / "out", codec="raw")
    (tmp_path / "out" / "manifest.json").unlink()
    tar = tmp_path / "out" / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[1000] ^= 1  # of a frame
    tar.write_bytes(content)
    with pytest.raises(UserError, match="has changed since it was written"):
        convert(flat_file, tmp_path / "out", codec="raw", resume=True)

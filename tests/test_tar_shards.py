"""Shards: what is written, who can read it, and what damage is found."""

import gc
import io
import json
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import webdataset
from conftest import assert_same_content, flat_columns

from lewm.datasets.convert import convert
from lewm.datasets.pixels import PackedFrames
from lewm.datasets.schema import open_source
from lewm.datasets.tar_index import build_index
from lewm.datasets.tar_shards import ShardSource, escape
from lewm.errors import UserError


@pytest.fixture(params=["zstd", "raw"])
def shards(request, flat_file, tmp_path):
    convert(flat_file, tmp_path / "out", codec=request.param, shard_bytes=200_000)
    return tmp_path / "out"


def test_shards_hold_exactly_what_the_file_held_and_have_its_fingerprint(shards, flat_file):
    source = open_source(shards)
    assert len(source.manifest["shards"]) > 1
    assert_same_content(open_source(flat_file), source)
    assert list(source.damage()) == []


def test_a_column_constant_over_an_episode_is_stored_once(shards):
    source = open_source(shards)
    assert "goal" in source.meta(5)["constant"]
    assert source._array(5, "col.goal.npy", "goal", rows=1).shape == (1, 2)
    assert source.column("goal", 5).shape == (source.lengths[5], 2)


def test_plain_webdataset_reads_the_shards(shards, flat_file):
    source = open_source(flat_file)
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
    assert len(samples) == len(source.lengths)
    for e, sample in enumerate(samples):
        actions = np.load(io.BytesIO(sample["action.npy"]))
        assert actions.tobytes() == source.column("action", e).tobytes()
        assert json.loads(sample["meta.json"])["key"] == source.keys[e]
        rows = np.arange(source.lengths[e])
        if "frames.npy" in sample:
            frames = np.load(io.BytesIO(sample["frames.npy"]))
        else:
            blob = sample["frames.lwf"]
            frames = PackedFrames(lambda low, size, blob=blob: blob[low : low + size], len(blob))[rows]
        assert (frames == source.frames(e, rows)).all()
        assert f"col.{escape('proprio/pos')}.npy".lower() in sample  # webdataset lowers extensions


def test_maps_are_not_pickled_and_open_again(shards):
    source = open_source(shards)
    before = source.frames(7, np.arange(3))
    assert (pickle.loads(pickle.dumps(source)).frames(7, np.arange(3)) == before).all()


def test_a_missing_or_stale_index_is_made_anew(shards, flat_file):
    for index in shards.glob("*.idx.npz"):
        index.unlink()
    assert_same_content(open_source(flat_file), open_source(shards))
    for tar in shards.glob("*.tar"):
        tar.with_suffix(".idx.npz").write_bytes(b"junk")
    assert_same_content(open_source(flat_file), open_source(shards))


def test_damage_anywhere_is_named_without_a_traceback(shards, capsys):
    from lewm.cli import main

    source = open_source(shards)
    tar, _ = source.located(0)
    whole, times = tar.read_bytes(), tar.stat()
    for ext in ("meta.json", "action.npy", "col.state.npy"):
        member = source.located(0)[1][ext]
        content = bytearray(whole)
        content[member.offset : member.offset + 8] = b"\xff" * 8
        tar.write_bytes(content)
        os.utime(tar, ns=(times.st_atime_ns, times.st_mtime_ns))
        capsys.readouterr()
        assert main(["inspect", str(shards), "--verify"]) == 2
        assert ext in capsys.readouterr().err
    manifest = json.loads((shards / "manifest.json").read_text())
    del manifest["codec"]
    (shards / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="damaged"):
        open_source(shards)


def test_a_shard_exchanged_for_another_of_the_same_size_is_refused(write_flat, tmp_path):
    columns = flat_columns([20] * 4)
    for name, shift in (("a", 0), ("b", 1)):
        convert(write_flat(columns | {"id": columns["id"] + shift}, f"{name}.h5"), tmp_path / name, codec="raw")
    for path in (tmp_path / "b").glob("shard*"):
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="exchanged"):
        open_source(tmp_path / "a")


def test_a_folder_without_manifest_is_called_incomplete(shards):
    (shards / "manifest.json").unlink()
    with pytest.raises(UserError, match="--resume"):
        open_source(shards)


def test_a_missing_or_resized_shard_is_refused_at_opening(shards):
    last = sorted(shards.glob("*.tar"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[:-512])
    with pytest.raises(UserError, match=f"{last.name} has {len(content) - 512} bytes"):
        open_source(shards)
    last.unlink()
    with pytest.raises(UserError, match="is missing"):
        open_source(shards)


def test_verify_finds_a_flipped_byte_of_frames_even_where_they_are_raw(shards):
    source = open_source(shards)
    tar, members = source.located(20)
    member = members.get("frames.npy") or members["frames.lwf"]
    content = bytearray(tar.read_bytes())
    content[member.offset + member.size - 2] ^= 4
    before = tar.stat()
    tar.write_bytes(content)
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))  # bit rot leaves no trace in times
    damage = list(ShardSource(shards).damage())
    assert any("sha256" in line for line in damage)
    assert any("episode 20" in line for line in damage)


@pytest.mark.parametrize("where", ["header", "boundary"])
def test_a_shard_that_lost_episodes_to_damage_never_opens_as_a_smaller_one(shards, where):
    tar = sorted(shards.glob("*.tar"))[0]
    member = open_source(shards).located(3)[1]["action.npy"]
    content = bytearray(tar.read_bytes())
    if where == "header":
        content[member.offset - 400] ^= 1
    else:
        del content[member.offset - 512 :]
    tar.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|truncated"):
        build_index(tar)


@pytest.mark.parametrize("name", ["../x.npy", "ep000000.evil.pkl", "ep000000.col.x.pth"])
def test_members_of_other_kinds_are_refused_unread(tmp_path, name):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match="no episode's member"):
        build_index(tmp_path / "s.tar")


def test_the_nan_at_an_episodes_end_survives_conversion(write_flat, tmp_path):
    columns = flat_columns([5, 6])
    columns["action"][[4, 10]] = np.nan
    convert(write_flat(columns), tmp_path / "out")
    assert np.isnan(open_source(tmp_path / "out").actions(1)[-1]).all()


def test_indexes_of_many_shards_are_read_when_they_are_needed(shards, flat_file, monkeypatch):
    from lewm.datasets import tar_shards

    assert len(list(shards.glob("*.tar"))) > 1
    asked = []
    read = ShardSource._index_of
    monkeypatch.setattr(tar_shards, "AT_OPENING", 1)
    monkeypatch.setattr(
        ShardSource, "_index_of", lambda self, tar, about: asked.append(tar.name) or read(self, tar, about)
    )
    source = open_source(shards)
    assert asked == []
    last = len(source.lengths) - 1
    for _ in range(2):
        source.actions(last)
    assert asked == [sorted(shards.glob("*.tar"))[-1].name]
    assert_same_content(open_source(flat_file), source)
    assert sorted(asked) == sorted(tar.name for tar in shards.glob("*.tar"))


@pytest.fixture
def shards_of_two(flat_file, tmp_path, monkeypatch):
    """Two shards or more, each index read when it is needed."""
    from lewm.datasets import tar_shards

    convert(flat_file, tmp_path / "late", codec="raw", shard_bytes=2**16)
    assert len(list((tmp_path / "late").glob("*.tar"))) >= 2
    monkeypatch.setattr(tar_shards, "AT_OPENING", 0)
    return tmp_path / "late"


def test_a_shard_exchanged_is_refused_too_where_its_index_is_read_late(write_flat, tmp_path, monkeypatch):
    from lewm.datasets import tar_shards

    monkeypatch.setattr(tar_shards, "AT_OPENING", 0)
    columns = flat_columns([20] * 4)
    for name, shift in (("a", 0), ("b", 1)):
        convert(write_flat(columns | {"id": columns["id"] + shift}, f"{name}.h5"), tmp_path / name, codec="raw")
    for path in (tmp_path / "b").glob("shard*"):
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    source = open_source(tmp_path / "a")
    for _ in range(2):
        with pytest.raises(UserError, match="exchanged"):
            source.actions(0)


def test_an_index_that_could_not_be_compared_is_not_kept(shards_of_two, monkeypatch):
    source = open_source(shards_of_two)
    with monkeypatch.context() as once:
        once.setattr(ShardSource, "_check_meta", lambda *_: (_ for _ in ()).throw(OSError("no more files")))
        with pytest.raises(OSError, match="no more files"):
            source.actions(0)
    compared = []
    monkeypatch.setattr(ShardSource, "_check_meta", lambda _, episode: compared.append(episode))
    source.actions(0)
    assert compared


def test_verify_goes_on_after_an_index_that_is_refused_late(shards_of_two):
    source = open_source(shards_of_two)
    last = len(source.lengths) - 1
    for tar, members in (source.located(0), source.located(last)):
        with tar.open("r+b") as file:
            file.seek(members["meta.json"].offset + 2)
            file.write(b"#")
    lines = list(open_source(shards_of_two).damage())
    for tar in (source.located(0)[0], source.located(last)[0]):
        assert sum(tar.name in line for line in lines) >= 2, lines  # its checksum, and the episode

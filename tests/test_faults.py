"""Damaged files of a data set: each ends in right data, or in a plain error that says where."""

from __future__ import annotations

import json

import numpy as np
import pytest
from damaged import member, rot

from lewm.cli import main
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.manifest import checksum_of
from lewm.datasets.schema import open_source
from lewm.datasets.tar_index import build_index, load_index
from lewm.datasets.tar_shards import ShardSource
from lewm.errors import UserError


@pytest.mark.parametrize("where", ["between members", "inside a header", "inside data"])
def test_a_truncated_shard_is_refused_at_opening_with_both_sizes(make, where):
    folder = make()
    tar, m = member(folder, 2, "action.npy")
    cut = {"between members": m.offset - 512, "inside a header": m.offset - 300, "inside data": m.offset + 7}[where]
    whole = tar.stat().st_size
    with tar.open("r+b") as file:
        file.truncate(cut)
    with pytest.raises(UserError, match=f"{tar.name} has {cut} bytes, manifest.json says {whole}"):
        open_source(folder)
    with pytest.raises(UserError, match=f"{tar.name} is .*truncated"):  # nor does it pass without a manifest
        build_index(tar)


def test_a_flipped_byte_of_a_tar_header_names_shard_episode_and_byte(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset - 512 + 3)
    source = open_source(folder)
    source.frames(2, np.arange(20))
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: frames.lwf at byte {m.offset}: a header"):
        source.frames(3, np.arange(20))


def test_a_flipped_byte_of_a_compressed_frame_names_shard_episode_and_frame(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset + m.size - 9)
    source = open_source(folder)
    source.frames(3, np.arange(19))
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: frame 19"):
        source.frames(3, np.arange(20))


@pytest.mark.parametrize("ext", ["action.npy", "meta.json", "col.state.npy"])
def test_a_flipped_byte_of_anything_but_frames_is_found_when_it_is_read(make, ext):
    folder = make(shard_bytes=2**20)  # the first and last episode of a shard are looked at when it is opened
    tar, m = member(folder, 3, ext)
    rot(tar, m.offset + m.size - 2)
    source = open_source(folder)
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: {ext} at byte {m.offset}"):
        source.actions(3) if ext == "action.npy" else source.column("state", 3)


def test_flipped_bytes_of_an_index_never_change_what_is_read(make):
    folder = make(shard_bytes=2**20)
    (index,) = folder.glob("*.idx.npz")
    (tar,) = folder.glob("*.tar")
    wanted, whole = load_index(index, tar_bytes=tar.stat().st_size), index.read_bytes()
    for at in range(0, len(whole), 37):
        rot(index, at, flip=1 << (at % 8))
        source = open_source(folder)
        assert [source.located(e) for e in range(len(wanted))] == [(tar, members) for members in wanted.values()]
        index.write_bytes(whole)


@pytest.mark.parametrize("part", ["lengths", "keys", "shape", "sha256", "frame_shape"])
def test_a_flipped_digit_of_a_manifest_is_found_by_its_checksum(make, part):
    folder = make()
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    at = next(i for i in range(text.index(f'"{part}"') + len(part) + 3, len(text)) if text[i].isdigit())
    manifest.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    with pytest.raises(UserError, match=r"manifest.json is damaged \(it differs from its checksum\)"):
        open_source(folder)


def test_a_manifest_of_an_earlier_version_has_no_checksum_and_opens(make):
    folder = make()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("checksum") == checksum_of(manifest)
    for shard in manifest["shards"]:
        del shard["index"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert list(ShardSource(folder).damage()) == []


def test_inspect_lists_all_damage_also_where_the_data_cannot_be_opened(make, capsys):
    folder = make()
    tars = sorted(folder.glob("*.tar"))
    tars[0].unlink()
    tars[1].write_bytes(tars[1].read_bytes()[:-100])
    rot(tars[2], 1000)
    assert main(["inspect", str(folder), "--verify"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("damaged: ")]
    for tar, words in zip(tars, ["missing", "sha256 differs", "sha256 differs"], strict=False):
        assert any(tar.name in line and words in line for line in said), tar


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_flip_in_frames_without_checksum_is_found_by_verify_full_and_not_by_sizes(make, codec):
    folder = make(codec)
    ext = "frames.npy" if codec == "raw" else "frames.lwf"
    tar, m = member(folder, 3, ext)
    if codec == "raw":
        rot(tar, m.offset + m.size - 5)
    else:  # in a frame's comment-free body, where the picture still decodes
        rot(tar, m.offset + m.size - 40, flip=1)
    about = {"global_batch": 6, "frameskip": 3, "num_workers": 0}
    ClipDataModule(str(folder), **about).source.frames(3, np.arange(20))
    with pytest.raises(UserError, match=rf"episode 3 .*{tar.name}: {ext} .* differs from its checksum"):
        ClipDataModule(str(folder), verify="full", **about).source.frames(3, np.arange(20))


def test_verify_full_of_a_file_without_checksums_is_said_to_do_nothing(flat_file):
    with pytest.warns(UserWarning, match="keeps no checksums"):
        _ = ClipDataModule(str(flat_file), verify="full").source

"""Files missing, strange, exchanged or copied: each is refused before step 0, or put right."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import LENGTHS, assert_same_content, flat_columns
from damaged import fit, member

from lewm.datasets.schema import open_source
from lewm.datasets.tar_shards import ShardSource
from lewm.errors import UserError


def test_an_index_that_belongs_to_another_shard_is_made_anew(make, capsys):
    folder = make()
    first, second = sorted(folder.glob("*.idx.npz"))[:2]
    first.write_bytes(second.read_bytes())
    assert list(ShardSource(folder).damage()) == []
    assert f"{first.name[:12]}.tar is missing, damaged or older" in capsys.readouterr().err


def test_a_missing_shard_and_a_strange_one_are_listed_before_step_0(make):
    folder = make()
    tar = sorted(folder.glob("*.tar"))[1]
    shutil.copy(tar, folder / "shard-000077.tar")
    with pytest.raises(UserError, match=r"holds shard-000077.tar, which manifest.json does not list"):
        open_source(folder)
    (folder / "shard-000077.tar").unlink()
    tar.unlink()
    with pytest.raises(UserError, match=rf"{tar.name} is missing; .*missing in all: {tar.name}"):
        open_source(folder)


def test_shards_that_changed_places_are_refused_before_step_0(make):
    folder = make("raw")
    one, two = (tar.with_suffix(suffix) for tar in sorted(folder.glob("*.tar"))[:2] for suffix in (".tar",))
    for suffix in (".tar", ".idx.npz"):
        a, b = one.with_suffix(suffix), two.with_suffix(suffix)
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)
    with pytest.raises(UserError, match=rf"{one.name}.*exchanged"):
        open_source(folder)


def test_a_shard_and_its_index_of_another_data_set_with_the_same_keys_are_refused_before_step_0(make):
    ours, theirs = make("raw"), make("raw", "other", pixels=flat_columns(LENGTHS, seed=1)["pixels"])
    for file in theirs.glob("shard-000001.*"):
        assert file.stat().st_size == (ours / file.name).stat().st_size or file.suffix == ".npz"
        shutil.copy(file, ours / file.name)
    with pytest.raises(UserError, match=r"shard-000001.tar is damaged or exchanged: its sha256"):
        open_source(ours)


CHILD = """
import os, sys
from lewm.cli import main
import lewm.fit
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)  # root may write anywhere
sys.exit(main(sys.argv[1:]))
"""


def test_a_read_only_folder_without_index_whose_name_has_blanks_and_umlauts_trains(make):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        data, out = Path(place) / "Daten für Übung 日本", Path(place) / "out"
        shutil.copytree(make(), data)
        for index in data.glob("*.idx.npz"):
            index.unlink()
        names = sorted(os.listdir(data))
        out.mkdir()
        os.chmod(out, 0o777)
        for path in (*data.iterdir(), data):
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) | stat.S_IROTH)
        argv = fit(data, out, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *argv],
            capture_output=True,
            text=True,
            cwd=place,
            env=os.environ | {"HOME": place},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.count("is missing, damaged or older than it: made anew") == len(names) - 1
        assert sorted(os.listdir(data)) == names
        data.chmod(0o755)


def copied_without_times(folder: Path) -> Path:
    """A copy whose indexes are older than their shards, as one made file by file in the order of names is."""
    copy = Path(shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile))
    for index in copy.glob("*.idx.npz"):
        os.utime(index, ns=(0, index.with_suffix("").with_suffix(".tar").stat().st_mtime_ns - 10**9))
    return copy


def test_of_a_copy_without_times_no_index_is_made_anew_and_each_shard_is_read_once(make, capsys):
    copy = copied_without_times(make())
    before = {path: path.read_bytes() for path in copy.iterdir()}
    open_source(copy)
    said = capsys.readouterr().err
    assert said.count("is newer than its index: compared with its sha256, once") == len(list(copy.glob("*.tar")))
    assert "made anew" not in said
    open_source(copy)
    assert capsys.readouterr().err == ""
    assert {path: path.read_bytes() for path in copy.iterdir()} == before


def test_of_a_copy_that_cannot_be_written_the_index_is_judged_by_its_digest_alone(make, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    whole = make()
    copy = copied_without_times(whole)
    for _ in range(2):
        assert_same_content(open_source(whole), open_source(copy))
    assert capsys.readouterr().err == ""
    index, other = sorted(copy.glob("*.idx.npz"))[:2]
    index.write_bytes(other.read_bytes())
    open_source(copy)
    assert "made anew" in capsys.readouterr().err


def test_a_shard_that_changed_after_its_index_is_refused_though_the_index_is_the_manifests(make, capsys):
    copy = copied_without_times(make("raw"))
    tar, m = member(copy, 3, "frames.npy")
    content = bytearray(tar.read_bytes())
    content[m.offset + m.size - 5] ^= 4
    tar.write_bytes(content)
    os.utime(tar, ns=(0, tar.stat().st_mtime_ns + 10**9))  # the index was touched when the copy was opened
    capsys.readouterr()
    with pytest.raises(UserError, match=rf"{tar.name} is damaged or exchanged: its sha256"):
        open_source(copy)
    assert "made anew" not in capsys.readouterr().err


def test_an_index_older_than_its_shard_is_made_anew_where_no_digest_tells(make, capsys):
    copy = copied_without_times(make())
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["checksum"]
    for shard in manifest["shards"]:
        del shard["index"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    open_source(copy)
    assert capsys.readouterr().err.count("made anew") == len(manifest["shards"])
    open_source(copy)
    assert capsys.readouterr().err == ""

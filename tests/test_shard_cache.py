"""The cache of remote shards: one download among processes, nothing half there, a full disk said plainly."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import pytest
from conftest import flat_columns
from folder_server import serving

from lewm.datasets import remote
from lewm.datasets.convert import convert
from lewm.datasets.remote import NotFetched, RemoteFolder
from lewm.datasets.shard_cache import ShardCache, cache_folder, cache_root
from lewm.datasets.tar_index import file_sha256

CODE = """
import json, sys
from pathlib import Path
from lewm.datasets.remote import RemoteFolder
from lewm.datasets.shard_cache import ShardCache
from lewm.datasets.tar_index import file_sha256
url, folder, shard = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
cache = ShardCache(RemoteFolder(url), folder)
print("ready", flush=True)
sys.stdin.readline()
print(file_sha256(cache.shard(shard)), flush=True)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    with h5py.File(folder / "flat.h5", "w") as file:
        for name, values in flat_columns([20] * 8).items():
            file[name] = values
    convert(folder / "flat.h5", folder / "set", codec="raw", shard_bytes=60_000)
    return folder / "set"


@pytest.fixture
def shards(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "set"))


@pytest.fixture
def server(shards):
    with serving(shards) as server:
        yield server


@pytest.fixture
def manifest(shards):
    return json.loads((shards / "manifest.json").read_text())


@pytest.fixture
def cache(server, tmp_path):
    return ShardCache(RemoteFolder(server.url), tmp_path / "cache")


def process(server, cache, shard) -> subprocess.Popen:
    command = [sys.executable, "-c", CODE, server.url, str(cache.folder), json.dumps(shard)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n"
    return started


def wait_for(server, shard, processes) -> None:
    while not server.whole[shard["file"]]:
        assert all(one.poll() is None for one in processes)
        time.sleep(0.01)


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_two_processes_fill_one_cache_with_one_download_and_both_are_right(server, cache, manifest):
    shard = manifest["shards"][0]
    server.faults[shard["file"]] = ["silent"]  # the first to ask waits until both have begun
    both = [process(server, cache, shard) for _ in range(2)]
    for one in both:
        one.stdin.write("\n")
        one.stdin.flush()
    wait_for(server, shard, both)
    server.gate.set()
    assert [one.communicate(timeout=60)[0].strip() for one in both] == 2 * [shard["sha256"]]
    assert server.whole[shard["file"]] == 1
    assert files(cache.folder) == [shard["file"]]


def test_a_process_killed_in_a_download_leaves_neither_a_shard_nor_a_lock(server, cache, manifest):
    shard = manifest["shards"][0]
    server.faults[shard["file"]] = ["silent"]
    dead = process(server, cache, shard)
    dead.stdin.write("\n")
    dead.stdin.flush()
    wait_for(server, shard, [dead])
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert files(cache.folder) == [f".{shard['file']}.tmp"]  # the next one overwrites it
    assert not cache.has(shard)
    assert file_sha256(cache.shard(shard)) == shard["sha256"]
    assert files(cache.folder) == [shard["file"]]


def test_a_lock_is_given_back_although_a_worker_was_forked_while_it_was_held(cache):
    with warnings.catch_warnings(), cache._locked("x"):
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with (cache.folder / ".x.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_here_whole_is_not_asked_for_again_and_needs_no_lock(server, cache, manifest):
    for _ in range(2):
        for shard in manifest["shards"]:
            cache.members(shard, cache.index(shard), "action.npy")
            assert file_sha256(cache.shard(shard)) == shard["sha256"]
        for lock in cache.folder.glob(".*.lock"):
            lock.unlink()
    assert set(server.whole.values()) == {1}
    assert not list(cache.folder.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_file_of_another_size_is_fetched_again(server, cache, manifest, content):
    shard = manifest["shards"][0]
    whole = cache.shard(shard).read_bytes()
    (cache.folder / shard["file"]).write_bytes(whole + b"\0" if content is None else content)
    assert cache.shard(shard).read_bytes() == whole
    assert server.whole[shard["file"]] == 2


def test_a_damaged_index_or_file_of_actions_in_the_cache_is_fetched_again(server, cache, manifest):
    shard = manifest["shards"][0]
    index = cache.index(shard)
    actions = cache.members(shard, index, "action.npy")
    for path in (p for p in cache.folder.iterdir() if not p.name.startswith(".")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert cache.index(shard) == index
    assert cache.members(shard, index, "action.npy") == actions
    assert server.whole[shard["file"].replace(".tar", ".idx.npz")] == 2


def test_a_disk_that_takes_no_more_is_said_with_the_space_needed_and_nothing_stays(cache, manifest, server):
    shard = manifest["shards"][0]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (shard["bytes"] // 2, hard))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(
            NotFetched, match=rf"full: {shard['file']} needs 0.1 MiB, [0-9.]+ MiB are free; .*data.cache"
        ):
            cache.shard(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert files(cache.folder) == []
    assert server.whole[shard["file"]] == 1  # no second attempt helps
    assert file_sha256(cache.shard(shard)) == shard["sha256"]


def test_a_disk_full_at_the_very_end_leaves_nothing_either(cache, manifest, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotFetched, match=r"full: shard-000000\.tar needs"):
        cache.shard(manifest["shards"][0])
    assert files(cache.folder) == []


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_fetched(cache, manifest, server):
    cache.folder.rmdir()
    cache.folder.write_text("no folder")  # as root, rights would not stop us
    with pytest.raises(NotFetched, match=r"cannot write .*choose another --data.cache"):
        cache.shard(manifest["shards"][0])
    assert not server.whole


def test_a_set_that_was_written_anew_has_a_cache_of_its_own(manifest):
    folder = RemoteFolder("http://me:secret@host/path/pusht/?sig=1")
    before = cache_folder(Path("c"), folder, manifest)
    assert before.parent == Path("c")
    assert before.name.startswith("pusht-")
    other = json.loads(json.dumps(manifest))
    other["shards"][0]["sha256"] = "0" * 64  # the same fingerprint: it does not look at every frame
    elsewhere = RemoteFolder("http://host/other/pusht")
    assert len({before, cache_folder(Path("c"), folder, other), cache_folder(Path("c"), elsewhere, manifest)}) == 3
    assert before == cache_folder(Path("c"), RemoteFolder("http://host/path/pusht?sig=2"), manifest)


def test_the_cache_lies_where_it_is_told_to(monkeypatch, tmp_path):
    monkeypatch.setenv("LEWM_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    assert cache_root("~/here") == Path.home() / "here"
    monkeypatch.delenv("LEWM_CACHE")
    assert cache_root() == Path.home() / ".cache" / "lewm"

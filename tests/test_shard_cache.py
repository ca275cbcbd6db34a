"""The cache of remote shards: one download among processes, nothing half there, a full disk said plainly."""

import errno
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from conftest import TINY_FLAGS

from lewm.cli import main
from lewm.datasets.remote import NotFetched, RemoteFolder
from lewm.datasets.remote_source import FETCHING
from lewm.datasets.schema import open_source
from lewm.datasets.shard_cache import ShardCache, cache_folder, cache_root
from lewm.datasets.tar_index import file_sha256

CODE = """
import json, sys
from pathlib import Path
from lewm.datasets.remote import RemoteFolder
from lewm.datasets.schema import open_source
from lewm.datasets.shard_cache import ShardCache
from lewm.datasets.tar_index import file_sha256
url, folder, shard = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
cache = ShardCache(RemoteFolder(url), folder)
print("ready", flush=True)
sys.stdin.readline()
print(file_sha256(cache.shard(shard)), flush=True)
"""


pytestmark = pytest.mark.usefixtures("patient")


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
            NotFetched, match=rf"{shard['file']}: .*it needs 0.1 MiB, [0-9.]+ MiB are free; .*data.cache"
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
    with pytest.raises(NotFetched, match=r"shard-000000\.tar: .*it needs"):
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


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB: three shards or so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.filterwarnings("ignore:clip .* is left out")  # none may be
@pytest.mark.parametrize("command", ["inspect", "fit"])
def test_a_disk_that_fills_up_ends_a_run_with_the_space_needed_and_nothing_partial(
    server, manifest, small_disk, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.setenv("LEWM_CACHE", str(small_disk))
    fit = [*TINY_FLAGS, f"--data.path={server.url}", "--data.frameskip=3", "--data.on_bad_record=skip"]
    fit += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1", "--trainer.logger=false"]
    assert main([command, *(fit if command == "fit" else [server.url, "--verify"])]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lewm: error: ")]
    whole = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
    told = rf"cannot write {small_disk}/.*: it needs 0\.[0-9] MiB, 0\.[0-9] MiB are free; free space or choose another "
    assert re.search(told + rf"--data.cache \(the whole set takes {whole:.1f} MiB\)", line)
    (cache,) = small_disk.iterdir()
    for thread in threading.enumerate():  # what is fetched beside training ends with the process, here it is waited for
        if thread.name == FETCHING:
            thread.join(60)
    assert not list(cache.glob(".*.tmp"))
    for shard in manifest["shards"]:
        assert not (path := cache / shard["file"]).exists() or file_sha256(path) == shard["sha256"]
    free = shutil.disk_usage(small_disk).free
    assert free < max(shard["bytes"] for shard in manifest["shards"])


def test_a_temporary_folder_without_space_for_the_manifest_is_said(server, monkeypatch):
    def full(self, name, to, **about):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RemoteFolder, "fetch", full)
    with pytest.raises(NotFetched, match=r"cannot keep .*manifest.json in .*: No space left.*TMPDIR"):
        open_source(server.url)


def test_an_index_that_the_disk_does_not_take_is_said_with_the_space_it_needs(
    server, shards, cache, manifest, monkeypatch
):
    shard = manifest["shards"][0]
    (shards / shard["file"].replace(".tar", ".idx.npz")).unlink()
    cache.shard(shard)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
    try:
        with monkeypatch.context() as larger, pytest.raises(NotFetched, match=r"idx.npz: .*it needs 1.0 MiB.*cache"):
            larger.setattr("lewm.datasets.shard_cache.index_bytes", lambda index: bytes(2**20))
            cache.index(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert len(cache.index(shard)) == shard["episodes"]

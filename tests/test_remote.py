"""Shards behind a URL: the same clips as from disk, bounded patience, plain errors, no secrets."""

import json
import re
import sys
from base64 import b64encode

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, assert_same_content
from folder_server import FOREVER, serving

from lewm.datasets import remote, tar_shards
from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.remote import ATTEMPTS, NotFetched, without_secrets
from lewm.datasets.remote_source import FetchAhead
from lewm.datasets.schema import open_source
from lewm.datasets.split import PARTS
from lewm.errors import UserError

SHARD = "shard-000001.tar"


pytestmark = pytest.mark.usefixtures("patient")


def module(path, **changes) -> ClipDataModule:
    return ClipDataModule(str(path), **({"global_batch": 6, "frameskip": 3, "num_workers": 0} | changes))


def indices(data, start=0) -> list[list[int]]:
    data.clips_consumed = lambda: start * data.global_batch
    return list(data.train_dataloader().sampler)


def last_episode_of(source, name) -> int:
    return max(e for e in range(len(source.lengths)) if source.located(e)[0].name == name)


def nothing_partial(source) -> bool:
    return not (source.path / SHARD).exists() and not list(source.path.glob(".*.tmp"))


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_an_http_folder_holds_exactly_what_the_folder_holds(flat_file, tmp_path, codec):
    convert(flat_file, tmp_path / "set", codec=codec, shard_bytes=200_000)
    with serving(tmp_path / "set") as server:
        source = open_source(server.url)
        assert_same_content(open_source(tmp_path / "set"), source)
        assert list(source.damage()) == []
        assert all(server.whole[shard["file"]] == 1 for shard in source.manifest["shards"])


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_other_kinds_of_url_do_as_well(shards, kind):
    import fsspec

    url = f"{kind}://{shards}"
    if kind == "memory":
        fsspec.filesystem("memory").put(f"{shards}/", f"{shards}/", recursive=True)
    assert_same_content(open_source(shards), open_source(url))


def test_batches_statistics_and_split_are_the_local_ones_bit_for_bit(server, shards):
    near, far = module(shards), module(server.url)
    assert near.interface == far.interface
    for part in PARTS:
        assert near.episodes(part).tolist() == far.episodes(part).tolist()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(near, name)(), getattr(far, name)(), strict=True)
        assert all((x == y).all() for p, q in pairs for x, y in zip(p, q, strict=True))


def test_loader_workers_fetch_for_themselves_and_change_nothing(server, shards):
    near, far = (list(module(path, num_workers=n).train_dataloader()) for path, n in ((shards, 0), (server.url, 1)))
    assert all((x == y).all() for p, q in zip(near, far, strict=True) for x, y in zip(p, q, strict=True))


def test_opening_and_statistics_fetch_no_shard_and_a_second_run_no_byte_of_one(server):
    for _ in range(2):
        data = module(server.url)
        assert data.interface
        assert not [name for name in server.whole if name.endswith(".tar")]
        asked = sum(server.parts.values())
    assert asked == sum(server.parts.values()) > 0


def test_where_the_server_knows_no_ranges_statistics_take_whole_shards(shards):
    with serving(shards, ranges=False) as server:
        assert module(server.url).interface == module(shards).interface
        assert max(n for name, n in server.whole.items() if name.endswith(".tar")) <= 2  # one to see that it sends all


def test_an_index_is_compared_before_actions_are_read_by_it(server, monkeypatch):
    monkeypatch.setattr(tar_shards, "AT_OPENING", 0)
    monkeypatch.setattr(tar_shards.ShardSource, "_check_members", lambda *_: (_ for _ in ()).throw(UserError("other")))
    with pytest.raises(UserError, match="other"):
        open_source(server.url).actions(0)


def test_ranges_that_came_damaged_are_asked_for_again(server, shards):
    server.faults[SHARD] = ["wrong"]
    assert module(server.url).interface == module(shards).interface


@pytest.mark.parametrize("fault", ["503", "429", "half", "wrong", "reset", "endless"])
def test_what_passes_is_tried_again(server, shards, fault):
    source, near = open_source(server.url), open_source(shards)
    server.faults[SHARD] = [fault] * (ATTEMPTS - 1)
    e = last_episode_of(source, SHARD)
    assert (source.frames(e, np.array([0])) == near.frames(e, np.array([0]))).all()
    assert server.whole[SHARD] == ATTEMPTS
    assert not list(source.path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("503", "503"),
        ("half", "ClientPayloadError"),
        ("wrong", "sha256"),
        ("endless", "more than the [0-9]+ bytes"),
        ("reset", "Disconnected"),
    ],
)
def test_what_does_not_pass_ends_after_so_many_attempts_and_leaves_nothing(server, fault, message):
    source = open_source(server.url)
    server.faults[SHARD] = [fault] * FOREVER
    with pytest.raises(NotFetched, match=rf"cannot fetch {server.url}/{SHARD}: .*{message}.*4 attempts"):
        source.frames(last_episode_of(source, SHARD), np.array([0]))
    # A connection that was kept open and is then reset, aiohttp itself opens once more.
    assert ATTEMPTS <= server.whole[SHARD] <= (2 if fault == "reset" else 1) * ATTEMPTS
    assert nothing_partial(source)


@pytest.mark.parametrize(("status", "message"), [("404", "is not there"), ("403", "rights"), ("400", "refused")])
def test_what_will_not_pass_is_said_at_once(server, status, message):
    source = open_source(server.url)
    server.faults[SHARD] = [status] * FOREVER
    with pytest.raises(NotFetched, match=message):
        source.frames(last_episode_of(source, SHARD), np.array([0]))
    assert server.whole[SHARD] == 1
    assert nothing_partial(source)


def test_a_silent_server_is_not_waited_for_without_end(server, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE_S", 0.2)
    source = open_source(server.url)
    server.faults[SHARD] = ["silent"] * FOREVER
    with pytest.raises(NotFetched, match="Timeout"):
        source.frames(last_episode_of(source, SHARD), np.array([0]))
    assert server.whole[SHARD] == ATTEMPTS
    assert nothing_partial(source)


def test_a_server_that_is_not_there_is_a_plain_error():
    with pytest.raises(NotFetched, match="whether the server is up"):
        open_source("http://127.0.0.1:9/set")


def test_a_folder_without_manifest_is_said_at_once(server, shards):
    (shards / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest.json is not there; .*lewm convert"):
        open_source(server.url)
    assert server.whole["manifest.json"] == 1


@pytest.mark.parametrize("name", ["../escaped.tar", "/tmp/escaped.tar", "sub/shard-000000.tar", "shard-000000.pth"])
def test_a_manifest_that_leads_out_of_the_cache_is_refused(server, shards, tmp_path, name):
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest.pop("checksum", None)
    manifest["shards"][0]["file"] = name
    (shards / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest.json: .*damaged"):
        open_source(server.url)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("how", ["missing", "junk", "another's"])
def test_an_index_that_is_missing_or_wrong_is_made_from_the_shard(server, shards, how, capsys):
    near = open_source(shards)
    index = (shards / SHARD).with_suffix(".idx.npz")
    if how == "missing":
        index.unlink()
    else:
        other = (shards / "shard-000000.idx.npz").read_bytes()
        index.write_bytes(b"junk" if how == "junk" else other)
    source = open_source(server.url)
    assert "made from the shard" in capsys.readouterr().err
    (shards / SHARD).with_suffix(".idx.npz").unlink(missing_ok=True)
    assert_same_content(near, source)


def test_no_secret_of_a_url_is_shown(server, capsys):
    from lewm.cli import main

    secret = server.url.replace("//", "//me:hush@hush@") + "?sig=abc123"
    source = open_source(secret)
    assert server.heard[0] == ("/manifest.json?sig=abc123", "Basic " + b64encode(b"me:hush@hush").decode())
    server.faults = {SHARD: ["503"] * FOREVER, "manifest.json": ["403"] * FOREVER}
    with pytest.raises(NotFetched) as caught:
        source.frames(last_episode_of(source, SHARD), np.array([0]))
    assert main(["inspect", secret, "--debug"]) == 2
    with pytest.raises(UserError) as few:
        ClipDataModule(secret.replace("http", "nohttp")).source  # noqa: B018
    for text in (str(caught.value), capsys.readouterr().err, str(few.value), str(source.path)):
        assert text
        assert not re.search("hush|sig=|abc123", text)


def test_secrets_are_cut_from_any_text():
    assert without_secrets("at s3://k:v@bucket/x and 'https://h/a?b=c', no more?") == (
        "at s3://bucket/x and 'https://h/a', no more?"
    )


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/set", "s3fs"), ("http://h/set", "aiohttp")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, url, package):
    import fsspec  # noqa: F401

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition(":")[0], raising=False)
    with pytest.raises(UserError, match=r"pip install 'lewm\[remote\]'"):
        open_source(url)


@pytest.mark.parametrize("url", ["nosuch://bucket/set", "simplecache::http://127.0.0.1/set"])
def test_urls_of_other_kinds_are_refused(url):
    with pytest.raises(UserError, match=r"no URL that can be read|chain of URLs"):
        open_source(url)


def test_a_server_that_fails_is_no_bad_record(server):
    data = module(server.url, on_bad_record="skip")
    assert data.interface
    for shard in data.source.manifest["shards"]:
        server.faults[shard["file"]] = ["403"] * FOREVER
    with pytest.raises(NotFetched):
        data.train[[0]]


def test_a_damaged_file_in_the_cache_is_found_by_verify(server):
    source = open_source(server.url)
    assert list(source.damage()) == []
    path = source.path / SHARD
    content = bytearray(path.read_bytes())
    content[source.located(last_episode_of(source, SHARD))[1]["frames.npy"].offset + 200] ^= 1
    path.write_bytes(content)
    assert any("sha256" in line for line in open_source(server.url).damage())


def test_shards_of_the_window_and_of_the_next_are_fetched_ahead(server):
    data = module(server.url)
    source, clips = data.source, data._clips_per_shard()
    ahead = FetchAhead(source, clips, seed=0, window=2, rank=1, world=2)
    ahead(0, 0).join()
    fetched = {s["file"] for s in source.manifest["shards"] if source.cache.has(s)}
    assert 3 <= len(fetched) <= 6 < len(clips)
    assert ahead(0, 1) is None
    assert ahead(0, int(clips.sum()) - 1) is not None
    source.frames(last_episode_of(source, min(fetched)), np.array([0]))
    assert server.whole[min(fetched)] == 1


def test_one_window_is_one_permutation_and_more_windows_are_another_order(server, shards):
    assert module(server.url).shards_per_window is None  # fewer than 64 shards
    everywhere = indices(module(shards))
    assert indices(module(server.url)) == indices(module(server.url, shards_per_window=500)) == everywhere
    near, far = (indices(module(path, shards_per_window=2)) for path in (shards, server.url))
    assert near == far != everywhere
    assert near != indices(module(shards, shards_per_window=3))


@pytest.mark.parametrize("start", [1, 7, 20])
def test_a_resume_in_the_middle_of_an_epoch_keeps_the_order_in_windows(server, shards, start):
    whole = indices(module(shards, shards_per_window=2))
    assert start < len(whole)
    assert indices(module(server.url, shards_per_window=2), start) == whole[start:]


def test_a_checkpoint_goes_on_only_in_its_order_and_an_old_one_in_the_global_order(shards, server):
    windowed, plain = module(server.url, shards_per_window=2), module(shards)
    assert windowed.state_dict()["shards_per_window"] == 2
    module(shards, shards_per_window=2).load_state_dict(windowed.state_dict())
    with pytest.raises(UserError, match=r"shards_per_window 2, this run has None"):
        plain.load_state_dict(windowed.state_dict())
    old = plain.state_dict()
    del old["shards_per_window"]
    plain.load_state_dict(old)
    module(server.url).load_state_dict(old)  # one window is the global order
    with pytest.raises(UserError, match="shards_per_window None, this run has 2"):
        windowed.load_state_dict(old)


def test_windows_of_what_has_no_shards_are_refused(flat_file, shards):
    with pytest.raises(UserError, match="not made of shards"):
        module(flat_file, shards_per_window=2).train_dataloader()
    with pytest.raises(UserError, match="at least 1"):
        module(shards, shards_per_window=0)


def test_training_over_http_gives_the_weights_of_training_from_disk(server, shards, tmp_path):
    from lewm.cli import main

    weights = []
    for name, path in (("near", shards), ("far", server.url)):
        flags = ["--data.path", str(path), "--data.shards_per_window", "2", "--data.frameskip", "3"]
        flags += ["--trainer.max_steps", "3", "--trainer.limit_val_batches", "0", "--checkpoint_every", "3"]
        out = ["--name", name, "--trainer.default_root_dir", str(tmp_path)]
        assert main(["fit", *TINY_FLAGS, *flags, *out]) == 0
        (saved,) = (tmp_path / name).glob("*/checkpoints/step=3.ckpt")
        weights.append(torch.load(saved, weights_only=True)["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][n] == weights[1][n]).all() for n in weights[0])


def test_an_s3_bucket_holds_exactly_what_the_folder_holds(shards, monkeypatch):
    pytest.importorskip("s3fs", reason="needs pip install 'lewm[remote]'")
    moto = pytest.importorskip("moto.server", reason="needs pip install 'moto[s3,server]'")
    import boto3
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3 = boto3.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="lewm")
        for path in shards.iterdir():
            s3.upload_file(str(path), "lewm", f"some/set/{path.name}")
        near, far = module(shards), module("s3://lewm/some/set")
        assert near.interface == far.interface
        assert not [shard for shard in far.source.manifest["shards"] if far.source.cache.has(shard)]
        assert_same_content(near.source, far.source)
        with pytest.raises(NotFetched, match="is not there"):
            open_source("s3://lewm/other")
        monkeypatch.setattr(far.source.cache, "has", lambda shard: False)
        s3.put_object(Bucket="lewm", Key=f"some/set/{SHARD}", Body=b"other bytes")
        with pytest.raises(NotFetched, match=r"11 of [0-9]+ bytes came"):
            far.source.cache.shard(far.source.manifest["shards"][1])
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()

"""Plain streaming: right clips in no promised order, and nothing that a shard or a list of URLs could run."""

import io
import os
import pickle
import tarfile

import h5py
import numpy as np
import pytest
import torch
from conftest import flat_columns
from folder_server import serving
from torch.utils.data import DataLoader

from lewm.datasets.convert import convert
from lewm.datasets.schema import open_source
from lewm.datasets.split import episodes_of
from lewm.datasets.streaming import expand, webdataset_pipeline
from lewm.errors import UserError

SETTING = {"batch": 4, "frameskip": 3, "shuffle": 10, "batches_per_epoch": 6}


@pytest.fixture(scope="module", params=["raw", "zstd"])
def shards(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamed")
    with h5py.File(folder / "flat.h5", "w") as file:
        for name, values in flat_columns([14] * 18).items():  # 252 rows: a frame's first pixel tells its row
            file[name] = values
    convert(folder / "flat.h5", folder / "set", codec=request.param, shard_bytes=60_000)
    return folder / "set"


def urls(shards) -> list[str]:
    found = [str(path) for path in sorted(shards.glob("*.tar"))]
    assert len(found) > (1 if "raw" in open_source(shards).codec else 0)
    return found


def check(batches, shards, part="train") -> None:
    source = open_source(shards)
    episodes = set(episodes_of(part, 0, source.keys).tolist())
    assert len(batches) == SETTING["batches_per_epoch"]
    seen = set()
    for batch in batches:
        assert batch.pixels.shape == (4, 4, 16, 16, 3)
        assert batch.pixels.dtype == torch.uint8
        assert (batch.index == -1).all()
        assert (batch.weight == 1).all()
        for pixels, actions in zip(batch.pixels.numpy(), batch.actions.numpy(), strict=True):
            row = int(pixels[0, 0, 0, 0])
            seen.add(row)
            e, t = divmod(row, 14)
            assert e in episodes
            assert (pixels == source.frames(e, t + 3 * np.arange(4))).all()
            assert actions.tobytes() == source.actions(e)[t : t + 9].tobytes()
    assert len(seen) > 8


def test_clips_are_those_of_the_shards_and_of_the_part_asked_for(shards):
    check(list(webdataset_pipeline(urls(shards), **SETTING)), shards)
    check(list(webdataset_pipeline(urls(shards), part="all", **SETTING)), shards, part="all")


def test_an_epoch_has_so_many_batches_and_another_follows(shards):
    pipeline = webdataset_pipeline(urls(shards), **SETTING)
    first, second = ([b.pixels for b in pipeline] for _ in range(2))
    assert len(first) == len(second) == 6
    assert not all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_loader_with_a_worker_gets_the_same_kind_of_batches(shards):
    check(list(DataLoader(webdataset_pipeline(urls(shards), **SETTING), batch_size=None, num_workers=1)), shards)


def test_shards_are_streamed_over_http_with_braces(shards):
    with serving(shards) as server:
        last = len(urls(shards)) - 1
        check(list(webdataset_pipeline(f"{server.url}/shard-{{000000..{last:06d}}}.tar", **SETTING)), shards)
        server.faults["shard-000000.tar"] = ["403"] * 9
        secret = server.url.replace("//", "//me:hush@") + "/shard-000000.tar?sig=hush"
        with pytest.raises(UserError, match=r"cannot read http://127.*/shard-000000.tar: .*403") as caught:
            list(webdataset_pipeline(secret, **SETTING))
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "hidden",
    [
        "pipe:touch {}",
        " pipe:touch {}",
        "PIPE:touch {}",
        ["good.tar", "pipe:touch {}"],
        "good.tar::pipe:touch {}",
        "{{good.tar,pipe:touch {}}}",
        "{{pi,fi}}pe:touch {}",
        ["{{a,b}}.tar", "{{x,pipe:touch {}}}"],
    ],
)
def test_a_command_is_never_run_unless_allowed_however_it_is_hidden(tmp_path, hidden):
    proof = tmp_path / "proof"
    given = [h.format(proof) for h in hidden] if isinstance(hidden, list) else hidden.format(proof)
    with pytest.raises(UserError, match="allow_pipe"):
        list(webdataset_pipeline(given, **SETTING))
    assert not proof.exists()


@pytest.mark.parametrize("scheme", ["gs", "ais", "htgs", "sftp", "hf", "http"])
def test_no_other_scheme_reaches_a_shell_as_it_does_in_webdataset(tmp_path, scheme):
    proof = tmp_path / "proof"
    with pytest.raises((UserError, ValueError, ImportError)):
        list(webdataset_pipeline(f"{scheme}://127.0.0.1:9/x'; touch {proof}; '.tar", **SETTING))
    assert not proof.exists()


def test_a_command_that_is_allowed_is_run(shards):
    commands = [f"pipe:cat {url}" for url in urls(shards)]
    assert expand(commands, allow_pipe=True) == commands
    check(list(webdataset_pipeline(commands, allow_pipe=True, **SETTING)), shards)


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_payload_of_these_tests_is_real(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "proof")))
    assert (tmp_path / "proof").is_dir()


@pytest.mark.parametrize(
    "name",
    ["ep000000.pyd", "ep000000.pth", "ep000000.pkl", "ep000000.pickle", "ep000000.frames.pth", "ep000000.action.npy"],
)
def test_a_pickle_in_a_shard_is_refused_and_executes_nothing(tmp_path, name):
    proof, payload = tmp_path / "proof", io.BytesIO()
    if name.endswith(".pth"):
        torch.save(Payload(proof), payload)
    elif name.endswith(".npy"):
        np.save(payload, np.array([Payload(proof)], dtype=object), allow_pickle=True)
    else:
        payload.write(pickle.dumps(Payload(proof)))
    write(tmp_path / "bad.tar", {"ep000000.meta.json": b'{"key": "k"}', name: payload.getvalue()})
    with pytest.raises(UserError, match=r"no episode's member|is damaged"):
        list(webdataset_pipeline(str(tmp_path / "bad.tar"), part="all", **SETTING))
    assert not proof.exists()


def write(path, members) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("how", ["outside", "link", "giant", "pax"])
def test_a_tar_that_means_harm_is_refused(tmp_path, how):
    info = tarfile.TarInfo("../ep000000.action.npy" if how == "outside" else "ep000000.action.npy")
    if how == "link":
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    if how == "pax":
        info.type = tarfile.XHDTYPE
    info.size = 7 * 2**30 if how in ("giant", "pax") else 0
    (tmp_path / "bad.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match=r"no shard of ours|not a shard of ours"):
        list(webdataset_pipeline(str(tmp_path / "bad.tar"), part="all", **SETTING))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar"]


@pytest.mark.parametrize("cut", ["boundary", "header", "data", "end"])
def test_a_shard_that_was_cut_is_an_error_and_never_a_shorter_one(shards, tmp_path, cut):
    source = open_source(shards)
    tar, members = source.located(0)
    at = {
        "boundary": members["action.npy"].offset - 512,
        "header": members["action.npy"].offset - 100,
        "data": members["action.npy"].offset + 10,
        "end": tar.stat().st_size // 512 * 512 - 10_240,
    }[cut]
    whole = tar.read_bytes()
    if cut == "end":
        at = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    (tmp_path / "cut.tar").write_bytes(whole[:at])
    with pytest.raises(UserError, match=r"truncated|damaged"):
        list(webdataset_pipeline(str(tmp_path / "cut.tar"), part="all", clips_per_episode=1, batch=4, shuffle=1))


def test_frames_that_would_fill_the_memory_are_refused(tmp_path):
    from lewm.datasets import npy
    from lewm.datasets.pixels import pack

    packed = bytearray(pack(np.zeros((12, 4, 4, 3), dtype=np.uint8), "zstd"))
    packed[8:16] = (2**20).to_bytes(4, "little") * 2
    members = {
        "ep000000.frames.lwf": bytes(packed),
        "ep000000.action.npy": npy.dumps(np.zeros((12, 2), dtype=np.float32)),
        "ep000000.meta.json": b'{"key": "k"}',
    }
    write(tmp_path / "bad.tar", members)
    with pytest.raises(UserError, match="frames of 1048576 x 1048576"):
        list(webdataset_pipeline(str(tmp_path / "bad.tar"), part="all", **SETTING))


def test_a_missing_shard_an_unknown_part_and_an_empty_list_are_plain_errors(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none.tar"):
        list(webdataset_pipeline(str(tmp_path / "none.tar"), **SETTING))
    with pytest.raises(UserError, match="one of train, val, test, all"):
        webdataset_pipeline("x.tar", part="rest")
    with pytest.raises(UserError, match="no URL"):
        webdataset_pipeline([])

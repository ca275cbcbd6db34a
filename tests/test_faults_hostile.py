"""Tars, frames and arrays made to harm: refused, nothing executed or written, no room made for what they declare."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from damaged import member

from lewm.datasets.pixels import HEADER, PackedFrames, decode_frame, encode_frame
from lewm.datasets.schema import open_source
from lewm.datasets.tar_index import build_index, file_sha256, load_index
from lewm.errors import UserError


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def plain(name: str, content: bytes = b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


HOSTILE = {
    "a module": lambda run: [plain("ep000000.pyd", pickle.dumps(Touch(run)))],
    "a pickle": lambda run: [plain("ep000000.pkl", pickle.dumps(Touch(run)))],
    "a torch file": lambda run: [plain("ep000000.pth", pickle.dumps(Touch(run)))],
    "a way out": lambda run: [plain("../x.npy", b"x")],
    "a way out behind a good name": lambda run: [plain("ep000000.col.a/../../x.npy", b"x")],
    "an absolute path": lambda run: [plain(f"{run}.npy", b"x")],
    "a symbolic link": lambda run: [plain("ep000000.action.npy", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a hard link": lambda run: [plain("ep000000.action.npy", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": lambda run: [plain("ep000000.action.npy", type=tarfile.CHRTYPE)],
    "a pipe": lambda run: [plain("ep000000.action.npy", type=tarfile.FIFOTYPE)],
    "a folder": lambda run: [plain("ep000000.action.npy", type=tarfile.DIRTYPE)],
    "a sparse file": lambda run: [plain("ep000000.action.npy", b"\0" * 512, type=tarfile.GNUTYPE_SPARSE)],
    "a long GNU name": lambda run: [plain("ep000000.action.npy", b"/etc/passwd\0", type=tarfile.GNUTYPE_LONGNAME)],
    "a pax header": lambda run: [plain("ep000000.action.npy", b"22 path=../../evil.py\n", type=tarfile.XHDTYPE)],
    "a name split in two": lambda run: [plain("a" * 90 + "/" + "ep000000.action.npy", b"x")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_is_refused_and_executes_and_writes_nothing(tmp_path, kind):
    run, folder = tmp_path / "ran", tmp_path / "data"
    folder.mkdir()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in HOSTILE[kind](run):
            archive.addfile(info, io.BytesIO(data))
            if info.type not in (tarfile.REGTYPE, b"\0") and data:  # tarfile writes no data of other types
                content.write(data.ljust(512, b"\0"))
                archive.offset += 512
    (folder / "shard-000000.tar").write_bytes(content.getvalue())
    manifest = {
        "format": 1,
        "fingerprint": "x",
        "codec": "raw",
        "frame_shape": [8, 8, 3],
        "columns": {"action": {"dtype": "<f4", "shape": [2]}},
        "shards": [
            {
                "file": "shard-000000.tar",
                "episodes": 1,
                "lengths": [5],
                "keys": ["a"],
                "bytes": len(content.getvalue()),
                "sha256": "",
            }
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"no episode's member|damaged or truncated"):
        open_source(folder)
    assert sorted(tmp_path.rglob("*")) == before
    assert not run.exists()


def test_a_pickle_inside_an_array_is_refused_unread(make, tmp_path):
    folder = make()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch(tmp_path / "ran")], dtype=object), allow_pickle=True)
    tar, m = member(folder, 0, "action.npy")
    content = bytearray(tar.read_bytes())
    payload = buffer.getvalue()[: m.size].ljust(m.size, b"\0")
    content[m.offset : m.offset + m.size] = payload
    tar.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:  # an attacker knows how checksums are made
        shard.pop("index"), manifest.pop("checksum", None)
        shard["sha256"] = file_sha256(folder / shard["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"action.npy is damaged"):
        open_source(folder).actions(0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [10 * 2**30, 8**11 - 1])
def test_a_header_that_declares_gigabytes_is_refused_without_room_for_them(tmp_path, size):
    info = tarfile.TarInfo("ep000000.action.npy")
    info.size = size
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT))
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"has 512 bytes, .* byte {size + 512}|at byte 0: .* no octal number"):
        build_index(tmp_path / "s.tar")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def bomb(codec: str) -> bytes:
    """A small blob that says, or is, far more than a frame."""
    if codec == "zstd":
        return encode_frame(np.zeros((2**12, 2**12, 3), np.uint8), "zstd")
    if codec == "zlib":
        return encode_frame(np.zeros((2**12, 2**12, 3), np.uint8), "zlib")
    blob = bytearray(encode_frame(np.zeros((16, 16, 3), np.uint8), codec))
    if codec == "png":
        struct.pack_into(">II", blob, 16, 60_000, 60_000)
        struct.pack_into(">I", blob, 29, zlib.crc32(blob[12:29]))
    else:
        struct.pack_into(">HH", blob, blob.index(b"\xff\xc0") + 5, 65_500, 65_500)
    return bytes(blob)


@pytest.mark.parametrize("codec", ["zstd", "zlib", "png", "jpeg"])
def test_a_frame_that_swells_to_gigabytes_is_refused_before_there_is_room_for_it(codec):
    blob, out = bomb(codec), np.empty((16, 16, 3), np.uint8)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"another size|does not end|picture of 6|bytes for a frame"):
        decode_frame(blob, codec, out)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_container_and_an_index_that_declare_gigabytes_are_refused_before_there_is_room_for_them(tmp_path):
    header = HEADER.pack(b"LWF1", 2**31, 2**15, 2**15, 3, 1)
    with zipfile.ZipFile(tmp_path / "x.idx.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("sample", "ext", "member"):
            archive.writestr(f"{name}.npy", bytes(2**26))
    tracemalloc.start()
    for shape in (None, (20, 16, 16, 3)):
        with pytest.raises(ValueError, match=r"does not fit|holds frames"):
            PackedFrames(lambda low, n: header[low : low + n], len(header), shape=shape)
    with pytest.raises(ValueError, match="too large for its tar"):
        load_index(tmp_path / "x.idx.npz", tar_bytes=100_000)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()

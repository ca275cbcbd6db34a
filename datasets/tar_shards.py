"""Episodes in tar shards: one sample an episode, readable by any webdataset user, memory-mapped by ours.

DATA/manifest.json           written last: schema, codec, shards with sizes and sha256, fingerprint
DATA/shard-000000.tar        ep000123.frames.npy or .frames.lwf, .action.npy, .col.NAME.npy, .meta.json
DATA/shard-000000.idx.npz    where each member lies, so that an episode is found without reading headers

Names of columns are percent-escaped (`/` becomes %2F, `.` becomes %2E); a column constant over an episode is stored
once and listed under `constant` in its meta. Only files of these kinds are read and nothing is ever extracted.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from lewm.datasets.pixels import PackedFrames
from lewm.datasets.schema import Column, require_column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.errors import UserError
from lewm.paths import written_atomically

FORMAT = 1
MANIFEST = "manifest.json"
MEMBER = re.compile(r"(ep\d{6,})\.(frames\.npy|frames\.lwf|action\.npy|meta\.json|col\.[^/]+\.npy)")


def escape(name: str) -> str:
    """A column's name as part of a member's name."""
    return quote(name, safe="").replace(".", "%2E")


@dataclass(frozen=True)
class Member:
    """Where one member's data lies in its tar, and its checksum."""

    offset: int
    size: int
    crc32: int


Index = dict[str, dict[str, Member]]  # sample -> extension -> member, in stored order


def build_index(tar: Path) -> Index:
    """Read every header and byte of a shard; UserError for anything that is not an episode's member."""
    index: Index = {}
    end = 0
    try:
        with tarfile.open(tar, "r:", format=tarfile.USTAR_FORMAT) as archive:
            for info in archive:
                match = MEMBER.fullmatch(info.name)
                if match is None or not info.isreg():
                    raise UserError(f"{tar} holds {info.name!r}, which is no episode's member; not a shard of ours")
                data = archive.extractfile(info)
                assert data is not None
                content = data.read()
                if len(content) != info.size:
                    raise UserError(f"{tar} is truncated inside {info.name}; restore it or convert again")
                member = Member(info.offset_data, info.size, zlib.crc32(content))
                index.setdefault(match[1], {})[match[2]] = member
                end = info.offset_data + info.size
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"not a readable shard: {tar} ({error}); restore it or convert again") from error
    # tarfile takes a damaged header for the end of the archive: only zeros may follow the last member.
    _check_only_zeros_follow(tar, end)
    return index


def _check_only_zeros_follow(tar: Path, end: int) -> None:
    with tar.open("rb") as file:
        file.seek(-(-end // 512) * 512)
        rest = file.read()
    if len(rest) < 1024 or any(rest):
        raise UserError(f"{tar} is damaged or truncated after byte {end}; restore it or convert again")


def save_index(index: Index, path: Path) -> None:
    """Write an index as arrays."""
    rows = [(sample, ext, m) for sample, members in index.items() for ext, m in members.items()]
    numbers = np.array([(m.offset, m.size, m.crc32) for _, _, m in rows], dtype=np.int64)
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, sample=np.array([r[0] for r in rows]), ext=np.array([r[1] for r in rows]), member=numbers
        )


def load_index(path: Path) -> Index:
    """Read an index; ValueError, OSError or KeyError if it is missing or damaged."""
    index: Index = {}
    with np.load(path, allow_pickle=False) as arrays:
        rows = zip(arrays["sample"].tolist(), arrays["ext"].tolist(), arrays["member"].tolist(), strict=True)
        for sample, ext, (offset, size, crc32) in rows:
            index.setdefault(sample, {})[ext] = Member(offset, size, crc32)
    return index


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; UserError where it is missing (the writer did not finish) or not ours."""
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(
            f"{folder} has no {MANIFEST}: no data set, or an incomplete one; `lewm convert --resume` ends it"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            raise UserError(f"{path} is of format {manifest['format']}, this version reads up to {FORMAT}; update lewm")
        if not manifest["shards"]:
            raise UserError(f"{path} lists no shards")
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or convert again") from error
    return manifest


class ShardSource:
    """See `schema.Source`. Shards are memory-mapped per process; maps are never pickled."""

    def __init__(self, path: str | Path, *, manifest: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.manifest = manifest or read_manifest(self.path)
        self._maps: dict[Path, mmap.mmap] = {}
        self._packed: dict[int, PackedFrames] = {}
        self._episodes: list[tuple[Path, dict[str, Member]]] = []
        try:
            self._read(self.manifest)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path / MANIFEST} is damaged ({error}); restore it or convert again") from error

    def _read(self, manifest: dict[str, Any]) -> None:
        self.codec: str = manifest["codec"]
        self.columns = {n: Column(np.dtype(c["dtype"]), tuple(c["shape"])) for n, c in manifest["columns"].items()}
        self.frame_shape: tuple[int, int, int] = tuple(manifest["frame_shape"])
        self.action_dim = int(np.prod(self.columns["action"].shape))
        lengths: list[int] = []
        self.keys: list[str] = []
        for shard in manifest["shards"]:
            tar = self._checked(shard)
            index = _index_of(tar)
            if len(index) != shard["episodes"]:
                raise UserError(f"{tar} holds {len(index)} episodes, {MANIFEST} says {shard['episodes']}; restore it")
            self._episodes += [(tar, members) for members in index.values()]
            lengths += shard["lengths"]
            self.keys += shard["keys"]
            if index and self.meta(len(self._episodes) - len(index))["key"] != shard["keys"][0]:
                raise UserError(f"{tar} holds other episodes than {MANIFEST} says; it was exchanged: restore it")
        self.lengths = np.array(lengths, dtype=np.int64)

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        try:
            if "frames.npy" in self._episodes[episode][1]:
                return self._array(episode, "frames.npy", view=True)[rows]
            return self._packed_frames(episode)[rows]
        except (ValueError, IndexError) as error:
            raise UserError(f"{self._where(episode)}: {error}; `lewm inspect --verify` lists all damage") from error

    def actions(self, episode: int) -> np.ndarray:
        return self._array(episode, "action.npy").astype(np.float32)

    def column(self, name: str, episode: int) -> np.ndarray:
        require_column(self, name)
        if name == "action":
            return self._array(episode, "action.npy")
        values = self._array(episode, f"col.{escape(name)}.npy")
        return np.repeat(values, self.lengths[episode], axis=0) if name in self.meta(episode)["constant"] else values

    def meta(self, episode: int) -> dict[str, Any]:
        """What the writer noted about an episode: key, length, constant columns and its own additions."""
        try:
            return json.loads(self._bytes(episode, "meta.json"))
        except ValueError as error:
            raise UserError(f"{self._where(episode)}: its meta.json is damaged; restore it or convert again") from error

    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    def damage(self) -> Iterator[str]:
        """Read every byte and decode every frame; one line for each thing that is wrong."""
        for shard in self.manifest["shards"]:
            if file_sha256(self.path / shard["file"]) != shard["sha256"]:
                yield f"{shard['file']}: sha256 differs from {MANIFEST}"
        readable = True
        for e in range(len(self.lengths)):
            for ext, member in self._episodes[e][1].items():
                if zlib.crc32(self._bytes(e, ext)) != member.crc32:
                    yield f"{self._where(e)}: {ext} differs from its checksum"
            try:
                self.frames(e, np.arange(self.lengths[e]))
                check_actions(self.actions(e), self._where(e))
                for name in self.columns:
                    self.column(name, e)
            except UserError as error:
                readable = False
                yield str(error)
        if readable and fingerprint(self) != self.fingerprint():
            yield f"the content differs from the fingerprint in {MANIFEST}"

    def _checked(self, shard: dict[str, Any]) -> Path:
        tar = self.path / shard["file"]
        if Path(shard["file"]).name != shard["file"] or not tar.is_file():
            raise UserError(f"{tar} is missing; {MANIFEST} lists it")
        if tar.stat().st_size != shard["bytes"]:
            raise UserError(f"{tar} has {tar.stat().st_size} bytes, {MANIFEST} says {shard['bytes']}; restore it")
        return tar

    def _packed_frames(self, episode: int) -> PackedFrames:
        if episode not in self._packed:
            tar, members = self._episodes[episode]
            m = members["frames.lwf"]
            data = self._map(tar)
            self._packed[episode] = PackedFrames(lambda low, n: data[m.offset + low : m.offset + low + n], m.size)
        return self._packed[episode]

    def _array(self, episode: int, ext: str, *, view: bool = False) -> np.ndarray:
        tar, members = self._episodes[episode]
        try:
            if not view:
                return np.load(io.BytesIO(self._bytes(episode, ext)), allow_pickle=False)
            m, data = members[ext], self._map(tar)
            head = io.BytesIO(data[m.offset : m.offset + 256])
            np.lib.format.read_magic(head)
            shape, _, dtype = np.lib.format.read_array_header_1_0(head)
            return np.ndarray(shape, dtype, buffer=data, offset=m.offset + head.tell())
        except (ValueError, KeyError, EOFError, TypeError) as error:
            raise UserError(f"{self._where(episode)}: {ext} is damaged; restore it or convert again") from error

    def _bytes(self, episode: int, ext: str) -> bytes:
        tar, members = self._episodes[episode]
        m = members[ext]
        return self._map(tar)[m.offset : m.offset + m.size]

    def _map(self, tar: Path) -> mmap.mmap:
        if tar not in self._maps:
            with tar.open("rb") as file:
                self._maps[tar] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[tar]

    def _where(self, episode: int) -> str:
        key = self.keys[episode] if episode < len(self.keys) else "?"
        return f"episode {episode} ({key}) in {self._episodes[episode][0]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_packed": {}}


def _index_of(tar: Path) -> Index:
    """The stored index, or one made anew where it is missing, damaged or older than its shard."""
    path = tar.with_suffix(".idx.npz")
    try:
        if path.stat().st_mtime_ns >= tar.stat().st_mtime_ns:
            return load_index(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass
    return _rebuilt_index(tar)


def _rebuilt_index(tar: Path) -> Index:
    """Read the shard's headers again and keep the result where that is allowed."""
    print(f"lewm: the index of {tar} is missing, damaged or older than it: made anew", file=sys.stderr)
    index = build_index(tar)
    with contextlib.suppress(UserError):
        save_index(index, tar.with_suffix(".idx.npz"))
    return index


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def column_of(ext: str) -> str | None:
    """The column that a member holds, or None for frames and meta."""
    if ext == "action.npy":
        return "action"
    return unquote(ext[len("col.") : -len(".npy")]) if ext.startswith("col.") else None

"""Episodes in tar shards: one sample an episode, readable by any webdataset user, memory-mapped by ours.

DATA/manifest.json           written last: schema, codec, shards with sizes and sha256, fingerprint
DATA/shard-000000.tar        ep000123.frames.npy or .frames.lwf, .action.npy, .col.NAME.npy, .meta.json
DATA/shard-000000.idx.npz    where each member lies, so that an episode is found without reading headers

Names of columns are percent-escaped (`/` becomes %2F, `.` becomes %2E); a column constant over an episode is stored
once and listed under `constant` in its meta. Only files of these kinds are read and nothing is ever extracted.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np

from lewm.datasets import npy
from lewm.datasets.manifest import MANIFEST, check_manifest, read_manifest
from lewm.datasets.pixels import PackedFrames
from lewm.datasets.schema import Column, require_column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.datasets.tar_index import BLOCK, REMEDY, Index, Located, Member, file_sha256, index_of, member_of
from lewm.errors import UserError

META_BYTES = 2**20  # more is no episode's meta.json
AT_OPENING = 64  # the indexes of so many shards are read at once, so that damage is said at once
Verify = Literal["sizes", "full"]


def escape(name: str) -> str:
    """A column's name as part of a member's name."""
    return quote(name, safe="").replace(".", "%2E")


class ShardSource:
    """See `schema.Source`. Shards are memory-mapped per process; maps are never pickled.

    Opening compares the manifest with the size of every shard. The indexes of more than 64 shards are each read when
    an episode of theirs is first needed, and kept as arrays, so that opening does not depend on their number.
    With `verify` at `sizes` each member's checksum is compared when it is first read, but that of frames: those of
    `zstd`, `zlib` and `png` have their own, those of `raw` and `jpeg` have none. `full` compares that of frames too.
    """

    def __init__(self, path: str | Path, *, manifest: dict[str, Any] | None = None, verify: Verify = "sizes") -> None:
        self.path = Path(path)
        self.manifest = manifest or read_manifest(self.path)
        self.verify: Verify = verify
        self._maps: dict[Path, mmap.mmap] = {}
        self._packed: dict[int, PackedFrames] = {}
        self._checked: set[tuple[int, str]] = set()
        self._indexes: dict[int, Located] = {}
        try:
            if manifest is not None:
                check_manifest(manifest)  # what is read from a file was checked there
            self._read(self.manifest)
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{self.path / MANIFEST} is damaged ({error}); {REMEDY}") from error

    def _read(self, manifest: dict[str, Any]) -> None:
        self.codec: str = manifest["codec"]
        self.columns = {n: Column(np.dtype(c["dtype"]), tuple(c["shape"])) for n, c in manifest["columns"].items()}
        self.frame_shape: tuple[int, int, int] = tuple(manifest["frame_shape"])
        self.action_dim = int(np.prod(self.columns["action"].shape))
        self.lengths = np.array([n for shard in manifest["shards"] for n in shard["lengths"]], dtype=np.int64)
        self.keys: list[str] = [key for shard in manifest["shards"] for key in shard["keys"]]
        self._refuse_strangers({shard["file"] for shard in manifest["shards"]})
        self._tars = [self._checked_size(shard) for shard in manifest["shards"]]  # of all, before any is read
        episodes = [shard["episodes"] for shard in manifest["shards"]]
        self._first = np.cumsum([0, *episodes])  # episode of each shard
        for number in range(len(episodes) if len(episodes) <= AT_OPENING else 0):
            self._located(number)

    def located(self, episode: int) -> tuple[Path, dict[str, Member]]:
        """The shard that holds an episode, and where its members lie."""
        number = self._shard_of(episode)
        return self._tars[number], self._located(number).members(episode - int(self._first[number]))

    def _located(self, number: int) -> Located:
        """Members of a shard's episodes; when first needed, its index is compared with the manifest."""
        if number not in self._indexes:
            tar, shard, first = self._tars[number], self.manifest["shards"][number], int(self._first[number])
            index = self._index_of(tar, shard)
            if len(index) != shard["episodes"]:
                raise UserError(f"{tar} holds {len(index)} episodes, {MANIFEST} says {shard['episodes']}; restore it")
            self._check_members(tar, index, first)
            self._indexes[number] = Located.of(index)
            try:
                for e in (first, first + len(index) - 1):
                    self._check_meta(e)
            except BaseException:  # whatever it was, what was not compared is not kept
                del self._indexes[number]
                raise
        return self._indexes[number]

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        try:
            if self.codec == "raw":
                shape = (int(self.lengths[episode]), *self.frame_shape)
                return npy.loads(self._bytes(episode, "frames.npy"), shape=shape, dtype=np.dtype(np.uint8))[rows]
            return self._packed_frames(episode)[rows]
        except UserError:
            raise
        except (ValueError, IndexError) as error:
            raise UserError(f"{self._where(episode)}: {error}; `lewm inspect --verify` lists all damage") from error

    def actions(self, episode: int) -> np.ndarray:
        actions = self._array(episode, "action.npy", "action").astype(np.float32)
        if (episode, "finite") not in self._checked:
            check_actions(actions.reshape(len(actions), -1), self._where(episode))
            self._checked.add((episode, "finite"))
        return actions

    def column(self, name: str, episode: int) -> np.ndarray:
        require_column(self, name)
        if name == "action":
            return self._array(episode, "action.npy", name)
        constant = name in self.meta(episode)["constant"]
        values = self._array(episode, f"col.{escape(name)}.npy", name, rows=1 if constant else None)
        return np.repeat(values, self.lengths[episode], axis=0) if constant else values

    def meta(self, episode: int) -> dict[str, Any]:
        """What the writer noted about an episode: key, length, constant columns and its own additions."""
        try:
            meta = json.loads(bytes(self._bytes(episode, "meta.json")))
            if isinstance(meta["constant"], list) and meta["length"] == self.lengths[episode]:
                return meta
            raise ValueError("it contradicts the manifest")
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self._where(episode)}: its meta.json is damaged ({error}); {REMEDY}") from error

    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    def damage(self) -> Iterator[str]:
        """Read every byte and decode every frame; one line for each thing that is wrong."""
        for shard in self.manifest["shards"]:
            if file_sha256(self.path / shard["file"]) != shard["sha256"]:
                yield f"{shard['file']}: sha256 differs from {MANIFEST}"
        self.verify = "full"
        self._checked.clear()
        readable = True
        for e in range(len(self.lengths)):
            for line in self._damage_of(e):
                readable = False
                yield line
        if readable and fingerprint(self) != self.fingerprint():
            yield f"the content differs from the fingerprint in {MANIFEST}"

    def _damage_of(self, episode: int) -> list[str]:
        everything = np.arange(self.lengths[episode])
        try:
            members = self.located(episode)[1]
        except UserError as error:
            return [str(error)]
        reads = [
            *(partial(self._bytes, episode, ext) for ext in members),
            partial(self.frames, episode, everything),
            partial(self.actions, episode),
            *(partial(self.column, name, episode) for name in self.columns),
        ]
        found: dict[str, None] = {}  # each line once, in order
        for read in reads:
            try:
                read()
            except UserError as error:
                found[str(error)] = None
        return list(found)

    def _refuse_strangers(self, listed: set[str]) -> None:
        """UserError naming shards that the manifest does not list: of another data set, or of a writing begun anew."""
        strange = sorted({tar.name for tar in self.path.glob("shard-*.tar")} - listed)
        if strange:
            raise UserError(f"{self.path} holds {', '.join(strange)}, which {MANIFEST} does not list; move it away")

    def _checked_size(self, shard: dict[str, Any]) -> Path:
        tar = self.path / shard["file"]
        if not tar.is_file():
            missing = [s["file"] for s in self.manifest["shards"] if not (self.path / s["file"]).is_file()]
            raise UserError(f"{tar} is missing; {MANIFEST} lists it (missing in all: {', '.join(missing)}); restore it")
        if tar.stat().st_size != shard["bytes"]:
            raise UserError(f"{tar} has {tar.stat().st_size} bytes, {MANIFEST} says {shard['bytes']}; restore it")
        return tar

    def _index_of(self, tar: Path, shard: dict[str, Any]) -> Index:
        return index_of(tar, digest=shard.get("index"), sha256=shard["sha256"])

    def _check_members(self, tar: Path, index: Index, first: int) -> None:
        """UserError unless the index lists the same members for each episode, those that the manifest implies."""
        frames = "frames.npy" if self.codec == "raw" else "frames.lwf"
        columns = {f"col.{escape(name)}.npy" for name in self.columns if name != "action"}
        wanted = {frames, "action.npy", "meta.json", *columns}
        for e, (sample, members) in enumerate(index.items(), first):
            if sample != f"ep{e:06d}" or members.keys() != wanted:
                odd = ", ".join(sorted(members.keys() ^ wanted)) or sample
                raise UserError(f"{tar} holds other members for episode {e} than {MANIFEST} says: {odd}; {REMEDY}")

    def _check_meta(self, episode: int) -> None:
        if self.meta(episode).get("key") != self.keys[episode]:
            raise UserError(
                f"{self._tar_of(episode)} holds other episodes than {MANIFEST} says; it was exchanged: restore it"
            )

    def _packed_frames(self, episode: int) -> PackedFrames:
        if episode not in self._packed:
            data = self._bytes(episode, "frames.lwf")
            shape = (int(self.lengths[episode]), *self.frame_shape)
            self._packed[episode] = PackedFrames(lambda low, n: bytes(data[low : low + n]), len(data), shape=shape)
        return self._packed[episode]

    def _array(self, episode: int, ext: str, column: str, rows: int | None = None) -> np.ndarray:
        about = self.columns[column]
        shape = (rows or int(self.lengths[episode]), *about.shape)
        try:
            return npy.loads(self._bytes(episode, ext), shape=shape, dtype=about.dtype).copy()
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self._where(episode)}: {ext} is damaged ({error}); {REMEDY}") from error

    def _bytes(self, episode: int, ext: str) -> memoryview:
        """A member's bytes in the map; when first read, its header and checksum are compared."""
        number = self._shard_of(episode)
        tar, m = self._tars[number], self._located(number).member(episode - int(self._first[number]), ext)
        data = memoryview(self._map(tar))[m.offset : m.offset + m.size]
        if (episode, ext) not in self._checked:
            try:
                self._check(episode, ext, m, data)
            except ValueError as error:
                raise UserError(f"{self._where(episode)}: {ext} at byte {m.offset}: {error}; {REMEDY}") from error
            self._checked.add((episode, ext))
        return data

    def _check(self, episode: int, ext: str, m: Member, data: memoryview) -> None:
        """ValueError unless the tar has a header of that member before these bytes, and they have its checksum."""
        if len(data) != m.size:
            raise ValueError(f"the shard ends after {len(data)} of {m.size} bytes; it shrank since it was opened")
        if ext == "meta.json" and m.size > META_BYTES:
            raise ValueError(f"it has {m.size} bytes, more than {META_BYTES}")
        tar = self._tar_of(episode)
        header = member_of(self._map(tar)[m.offset - BLOCK : m.offset])
        if header != (f"ep{episode:06d}.{ext}", m.size):
            raise ValueError(f"the shard holds {header[0]} of {header[1]} bytes there")
        if (self.verify == "full" or not ext.startswith("frames.")) and zlib.crc32(data) != m.crc32:
            raise ValueError(f"{ext} differs from its checksum")

    def _map(self, tar: Path) -> mmap.mmap:
        if tar not in self._maps:
            with tar.open("rb") as file:
                self._maps[tar] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[tar]

    def _where(self, episode: int) -> str:
        key = self.keys[episode] if episode < len(self.keys) else "?"
        return f"episode {episode} ({key}) in {self._tar_of(episode)}"

    def _shard_of(self, episode: int) -> int:
        return int(np.searchsorted(self._first, episode, side="right")) - 1

    def _tar_of(self, episode: int) -> Path:
        return self._tars[self._shard_of(episode)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_packed": {}, "_checked": set()}


def column_of(ext: str) -> str | None:
    """The column that a member holds, or None for frames and meta."""
    if ext == "action.npy":
        return "action"
    return unquote(ext[len("col.") : -len(".npy")]) if ext.startswith("col.") else None

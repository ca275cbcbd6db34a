"""Writing tar shards: deterministic bytes, finished shards renamed into place, the manifest last."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lewm.datasets import npy
from lewm.datasets.manifest import CHECKSUM, FORMAT, MANIFEST, checksum_of, read_manifest
from lewm.datasets.pixels import CODECS, PackedFrames, choose_codec, pack
from lewm.datasets.schema import Column
from lewm.datasets.stats import check_actions
from lewm.datasets.summary import fingerprint
from lewm.datasets.tar_index import Index, Member, build_index, digest_of, file_sha256, save_index, stored_index
from lewm.datasets.tar_shards import ShardSource, column_of, escape
from lewm.errors import UserError
from lewm.paths import make_folder, reason, sync, written_atomically

BEGUN = ".begun.json"  # stands until the manifest does
SHARD_BYTES = 256 * 2**20
TRIAL_FRAMES = 64  # that `auto` looks at


class EpisodeWriter:
    """Write episodes one by one into a folder of shards; a context manager, the data set is whole when it ends.

    With `resume`, finished shards of an interrupted run are kept: `done` episodes need not be added again, and the
    caller adds those that follow, in the same order. Where an error ends it, finished shards stay and no manifest is
    written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        codec: str = "auto",
        shard_bytes: int = SHARD_BYTES,
        resume: bool = False,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if codec not in (*CODECS, "auto"):
            raise UserError(f"unknown codec {codec!r}; one of auto, {', '.join(CODECS)}")
        self.folder = make_folder(folder)
        self.codec, self.shard_bytes, self.provenance = codec, shard_bytes, provenance or {}
        self._shards: list[dict[str, Any]] = []
        self._columns: dict[str, Column] = {}
        self._frame_shape: tuple[int, ...] = ()
        self._keys: set[str] = set()
        self._tar: tarfile.TarFile | None = None
        if (self.folder / MANIFEST).exists():
            raise UserError(f"{self.folder} already holds a finished data set; choose another folder")
        if resume:
            self._take_over()
        elif any(self.folder.glob("shard-*")):
            raise UserError(
                f"{self.folder} holds shards of an unfinished data set; add --resume or choose another folder"
            )

    @property
    def done(self) -> int:
        """Episodes in finished shards."""
        return sum(shard["episodes"] for shard in self._shards)

    @property
    def keys_done(self) -> list[str]:
        """Keys of the episodes in finished shards."""
        return [key for shard in self._shards for key in shard["keys"]]

    def expect(self, begun: dict[str, Any]) -> None:
        """Note what the data are made from until they are whole; UserError if an interrupted run noted otherwise."""
        path = self.folder / BEGUN
        if self.done and path.exists() and json.loads(path.read_text(encoding="utf-8")) != begun:
            raise UserError(f"the shards in {self.folder} were begun from another source or setting; start elsewhere")
        with written_atomically(path) as temporary:
            temporary.write_text(json.dumps(begun), encoding="utf-8")

    def add(self, frames: np.ndarray, columns: dict[str, np.ndarray], *, key: str, **meta: Any) -> None:
        """Append an episode: frames (t, h, w, c) uint8 and columns (t, ...), `action` among them.

        `action[t]` leads from frame t to t + 1; the last row's is ignored by every reader. UserError if shapes, dtypes
        or column names differ from the episodes before, an action is NaN, or the key is not new.
        """
        self._check(frames, columns, key)
        if self.codec == "auto":
            self.codec = choose_codec(frames[:TRIAL_FRAMES])
        if self._tar is None:
            self._begin_shard()
        shard = self._shards[-1]
        sample = f"ep{self.done:06d}"
        constant = [n for n in sorted(columns) if n != "action" and _is_constant(columns[n])]
        if self.codec == "raw":
            self._put(f"{sample}.frames.npy", npy.dumps(frames))
        else:
            self._put(f"{sample}.frames.lwf", pack(frames, self.codec))  # type: ignore[arg-type]
        self._put(f"{sample}.action.npy", npy.dumps(columns["action"]))
        for name in sorted(set(columns) - {"action"}):
            values = columns[name][:1] if name in constant else columns[name]
            self._put(f"{sample}.col.{escape(name)}.npy", npy.dumps(values))
        noted = {"key": key, "length": len(frames), "constant": constant, **meta}
        self._put(f"{sample}.meta.json", json.dumps(noted, sort_keys=True).encode())
        shard["episodes"] += 1
        shard["lengths"].append(len(frames))
        shard["keys"].append(key)
        self._keys.add(key)
        if self._partial(shard).stat().st_size >= self.shard_bytes:
            self._end_shard()

    def close(self) -> None:
        """End the last shard and write the manifest: from here on the data set can be opened."""
        if self._tar is not None:
            self._end_shard()
        if not self._shards:
            raise UserError(f"no episode was added to {self.folder}: nothing to write")
        # The fingerprint is taken from what was written, through the reader that training uses.
        manifest = self._manifest()
        manifest["fingerprint"] = fingerprint(ShardSource(self.folder, manifest=manifest))
        manifest[CHECKSUM] = checksum_of(manifest)
        path = self.folder / MANIFEST
        with self._telling_how_to_go_on(path), written_atomically(path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        (self.folder / BEGUN).unlink(missing_ok=True)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._tar is not None:
                self._drop_partial(self._tar)

    def _check(self, frames: np.ndarray, columns: dict[str, np.ndarray], key: str) -> None:
        where = f"episode {self.done} ({key})"
        if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) == 0:
            raise UserError(f"frames of {where} must be (t, h, w, c) uint8, got {frames.shape} {frames.dtype}")
        if "action" not in columns:
            raise UserError(f"{where} has no column `action`; it has: {', '.join(sorted(columns)) or 'none'}")
        if key in self._keys:
            raise UserError(f"{where}: the key stands twice; episodes need different ones")
        for name, values in columns.items():
            if values.dtype.hasobject or values.dtype.names:
                raise UserError(f"{where}: column {name!r} is {values.dtype}; numbers or fixed-width strings only")
            if len(values) != len(frames):
                raise UserError(f"{where}: column {name!r} has {len(values)} rows for {len(frames)} frames")
        check_actions(columns["action"].astype(np.float32).reshape(len(frames), -1), where)
        shape, types = frames.shape[1:], {n: Column(v.dtype, v.shape[1:]) for n, v in columns.items()}
        if not self._frame_shape:
            self._frame_shape, self._columns = shape, types
        if shape != self._frame_shape:
            raise UserError(f"{where} has frames {shape}, those before {self._frame_shape}; sizes must agree")
        if types != self._columns:
            odd = sorted(n for n in {*types, *self._columns} if types.get(n) != self._columns.get(n))
            raise UserError(f"{where} differs from those before it in the type of: {', '.join(odd)}")

    def _begin_shard(self) -> None:
        shard = {"file": f"shard-{len(self._shards):06d}.tar", "episodes": 0, "lengths": [], "keys": []}
        self._shards.append(shard)
        with self._telling_how_to_go_on(self.folder / shard["file"]):
            self._tar = tarfile.open(self._partial(shard), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def _put(self, name: str, content: bytes) -> None:
        assert self._tar is not None
        info = tarfile.TarInfo(name)  # owner, mode and time stay at their defaults: equal input, equal bytes
        info.size = len(content)
        try:
            with self._telling_how_to_go_on(self.folder / self._shards[-1]["file"]):
                self._tar.addfile(info, io.BytesIO(content))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"the column name in {name!r} is too long for a tar ({error})") from error

    def _end_shard(self) -> None:
        assert self._tar is not None
        shard = self._shards[-1]
        partial, tar = self._partial(shard), self.folder / shard["file"]
        with self._telling_how_to_go_on(tar):
            self._tar.close()
            index = build_index(partial)
            sync(partial)
            partial.rename(tar)
        self._tar = None
        path = tar.with_suffix(".idx.npz")
        with self._telling_how_to_go_on(path):
            save_index(index, path)
        shard.update(_about(tar, index))

    @contextmanager
    def _telling_how_to_go_on(self, path: Path) -> Iterator[None]:
        """Make one line of what the system says against writing a file, also where another line was made of it."""
        try:
            yield
        except (OSError, UserError) as error:
            cause = error.__cause__ if isinstance(error, UserError) else error
            if not isinstance(cause, OSError):
                raise
            if self._tar is not None:
                self._drop_partial(self._tar)  # before free space is asked for
            size = f", up to {self.shard_bytes / 2**20:.1f} MiB" if path.suffix == ".tar" else ""
            why = reason(cause, self.folder)
            raise UserError(f"cannot write {path}{size}: {why}, then --resume") from cause

    def _drop_partial(self, tar: tarfile.TarFile) -> None:
        with suppress(OSError):  # what it still holds back may not fit on the disk either
            tar.close()
        self._partial(self._shards[-1]).unlink(missing_ok=True)

    def _partial(self, shard: dict[str, Any]) -> Path:
        return self.folder / f".{shard['file']}.tmp"

    def _take_over(self) -> None:
        """Adopt the finished shards of an interrupted run and drop its partial one."""
        for leftover in self.folder.glob(".*.tmp"):  # of shards, indices, or a manifest
            leftover.unlink()
        for number, tar in enumerate(sorted(self.folder.glob("shard-*.tar"))):
            if tar.name != f"shard-{number:06d}.tar":
                raise UserError(f"{self.folder} lacks shard-{number:06d}.tar but has {tar.name}; start again elsewhere")
            index, path = build_index(tar), tar.with_suffix(".idx.npz")
            noted = stored_index(path, tar)
            if noted is not None and digest_of(noted) != digest_of(index):
                raise UserError(
                    f"{tar} has changed since it was written, say its checksums; remove it and those after it, then "
                    "--resume"
                )
            save_index(index, path)
            try:
                if number == 0:
                    self._take_over_schema(tar, index["ep000000"])
                metas = [json.loads(_read(tar, members["meta.json"])) for members in index.values()]
                lengths, keys = [meta["length"] for meta in metas], [meta["key"] for meta in metas]
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{tar} is damaged ({error}); remove it and those after it, then --resume") from error
            self._keys.update(keys)
            self._shards.append(
                {"file": tar.name, "episodes": len(index), "lengths": lengths, "keys": keys, **_about(tar, index)}
            )

    def _take_over_schema(self, tar: Path, members: dict[str, Member]) -> None:
        if "frames.lwf" in members:
            content = _read(tar, members["frames.lwf"])
            packed = PackedFrames(lambda low, size: content[low : low + size], len(content))
            self.codec, self._frame_shape = packed.codec, packed.shape[1:]
        else:
            self.codec = "raw"
            self._frame_shape = npy.loads(_read(tar, members["frames.npy"])).shape[1:]
        for ext, member in members.items():
            if (name := column_of(ext)) is not None:
                values = npy.loads(_read(tar, member))
                self._columns[name] = Column(values.dtype, values.shape[1:])

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "fingerprint": "",
            "codec": self.codec,
            "lossy": self.codec == "jpeg",
            "frame_shape": list(self._frame_shape),
            "columns": {n: {"dtype": c.dtype.str, "shape": list(c.shape)} for n, c in sorted(self._columns.items())},
            "episodes": self.done,
            "steps": sum(sum(shard["lengths"]) for shard in self._shards),
            "shards": self._shards,
            "shardlist": [{"url": shard["file"], "nsamples": shard["episodes"]} for shard in self._shards],
            "provenance": self.provenance,
        }


def is_finished(folder: str | Path, *, provenance: dict[str, Any], episodes: int) -> bool:
    """Whether a folder holds the whole data set; UserError if it holds another one."""
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    if manifest.get("provenance") != provenance or manifest.get("episodes") != episodes:
        raise UserError(f"{folder} is finished and was made from another source or setting; choose another folder")
    (folder / BEGUN).unlink(missing_ok=True)  # of one that died with its last step
    return True


def _about(tar: Path, index: Index) -> dict[str, Any]:
    """What a manifest says of a finished shard beside its episodes."""
    return {"bytes": tar.stat().st_size, "sha256": file_sha256(tar), "index": digest_of(index)}


def _is_constant(values: np.ndarray) -> bool:
    """Whether every row has the same bytes (so NaN equals itself)."""
    rows = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8).reshape(len(values), -1)
    return bool((rows == rows[0]).all())


def _read(tar: Path, member: Member) -> bytes:
    with tar.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)

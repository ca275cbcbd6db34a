"""Files of a remote folder on the local disk: each fetched once among processes, verified, and only then named."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from lewm.datasets.remote import Differs, NotFetched, RemoteFolder, UnusableFile
from lewm.datasets.tar_index import INDEX_RAISES, Index, build_index, digest_of, file_sha256, index_bytes, load_index
from lewm.errors import UserError
from lewm.paths import make_folder, written_atomically

T = TypeVar("T")
ELSEWHERE = "choose another --data.cache"
INDEX_SLACK = 2**20  # an index is smaller than its shard, but for what a zip adds


def cache_root(folder: str | None = None) -> Path:
    """Where cached data sets lie: the folder given, else LEWM_CACHE, else ~/.cache/lewm."""
    return Path(folder or os.environ.get("LEWM_CACHE") or Path.home() / ".cache" / "lewm").expanduser()


def cache_folder(root: Path, remote: RemoteFolder, manifest: dict[str, Any]) -> Path:
    """The folder of one data set: named after its URL and all that its manifest says of content.

    The fingerprint alone would not do: it looks at three frames of an episode, checksums cover every byte.
    """
    digest = blake2b(f"{remote.shown}:{manifest['fingerprint']}".encode(), digest_size=8)
    for shard in manifest["shards"]:
        digest.update(f":{shard['file']}:{shard['bytes']}:{shard['sha256']}".encode())
    return root / f"{remote.name}-{digest.hexdigest()}"


class ShardCache:
    """The cache of one data set. A file under its final name is whole: it was verified before it was renamed.

    It holds all that was ever asked for; delete its folder to have the space back. Where there is none left, the error
    names the space that the file needs, and `whole_bytes`, that of all files, if it is known.
    """

    def __init__(self, remote: RemoteFolder, folder: Path, *, whole_bytes: int | None = None) -> None:
        self.remote, self.folder = remote, make_folder(folder)
        whole = f" (the whole set takes {whole_bytes / 2**20:.1f} MiB)" if whole_bytes is not None else ""
        self._elsewhere = ELSEWHERE + whole

    def has(self, shard: dict[str, Any]) -> bool:
        """Whether a shard is here; a file of another size is not it."""
        return _size(self.folder / shard["file"]) == shard["bytes"]

    def shard(self, shard: dict[str, Any]) -> Path:
        """A shard's local file, fetched if it is not here; NotFetched if it cannot be had whole."""
        path = self.folder / shard["file"]

        def load(file: Path) -> Path:
            if not self.has(shard):
                raise Differs
            return file

        def check(file: Path) -> None:
            if (size := _size(file)) != shard["bytes"]:
                raise Differs(f"{size} of {shard['bytes']} bytes came")
            if file_sha256(file) != shard["sha256"]:
                raise Differs("its sha256 is not the manifest's")

        return self._get(path, load, lambda: self._fetch(path, shard["bytes"], check))

    def index(self, shard: dict[str, Any]) -> Index:
        """A shard's index; made from the shard itself where the server has none or a damaged one."""
        path = (self.folder / shard["file"]).with_suffix(".idx.npz")

        def load(file: Path) -> Index:
            try:
                index = load_index(file, tar_bytes=shard["bytes"])
            except INDEX_RAISES as error:
                raise Differs(f"it is damaged ({error})") from error
            if shard.get("index") not in (None, digest_of(index)):
                raise Differs("its content is not the manifest's")
            return index

        def fetch() -> None:
            try:
                self._fetch(path, shard["bytes"] + INDEX_SLACK, load)
            except UnusableFile as error:
                print(f"lewm: {error}; it is made from the shard", file=sys.stderr)
                content = index_bytes(build_index(self.shard(shard)))
                with self._written(path, len(content)) as temporary:
                    temporary.write_bytes(content)

        return self._get(path, load, fetch)

    def members(self, shard: dict[str, Any], index: Index, ext: str) -> list[bytes]:
        """The member of that extension of every episode of a shard, without fetching the shard; checksums compared.

        Raises:
            UnusableFile: the server gives no ranges of bytes.
        """
        members = [found[ext] for found in index.values()]
        ends = list(accumulate(m.size for m in members))
        path = (self.folder / shard["file"]).with_suffix(f".{ext}s")

        def check(found: list[bytes]) -> None:
            if [(len(c), zlib.crc32(c)) for c in found] != [(m.size, m.crc32) for m in members]:
                raise Differs(f"{ext} differs from its checksum")

        def load(file: Path) -> list[bytes]:
            content = file.read_bytes()
            found = [content[end - m.size : end] for end, m in zip(ends, members, strict=True)]
            check(found)
            return found

        def fetch() -> None:
            spans = [(m.offset, m.offset + m.size) for m in members]
            content = b"".join(self.remote.ranges(shard["file"], spans, check=check))
            with self._written(path, len(content)) as temporary:
                temporary.write_bytes(content)

        return self._get(path, load, fetch)

    def _get(self, path: Path, load: Callable[[Path], T], fetch: Callable[[], None]) -> T:
        """What `load` makes of a file; where that raises, `fetch` brings it first, in one process of all."""
        with suppress(Differs, OSError):
            return load(path)
        with self._locked(path.name):
            with suppress(Differs, OSError):  # another process may have fetched it meanwhile
                return load(path)
            fetch()
            return load(path)

    def _fetch(self, path: Path, limit: int, check: Callable[[Path], object]) -> None:
        with self._written(path, limit) as temporary:
            temporary.write_bytes(b"")  # what the disk refuses is known before the server is asked
            self.remote.fetch(path.name, temporary, limit=limit, check=check)

    @contextmanager
    def _written(self, path: Path, size: int) -> Iterator[Path]:
        """`written_atomically` by the holder of the file's lock; what goes wrong is no fault of the data."""
        try:
            with written_atomically(path, needed=size, locked=True, elsewhere=self._elsewhere) as temporary:
                yield temporary
        except NotFetched:
            raise
        except UserError as error:
            raise NotFetched(str(error)) from error

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a file among processes and threads; the system lets go of a dead process's."""
        import fcntl

        path = self.folder / f".{name}.lock"
        try:
            file = path.open("a")
        except OSError as error:
            raise NotFetched(f"cannot write {path}: {error.strerror}; free space or {self._elsewhere}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing would not do: a loader's worker forked meanwhile holds the same open file.
                fcntl.flock(file, fcntl.LOCK_UN)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None

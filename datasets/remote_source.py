"""A folder of shards behind a URL as a source of episodes: shards are cached whole when they are first needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from lewm.datasets.manifest import MANIFEST, parse_manifest
from lewm.datasets.order import shard_windows
from lewm.datasets.remote import Differs, NotFetched, RemoteFolder, UnusableFile
from lewm.datasets.shard_cache import ShardCache, cache_folder, cache_root
from lewm.datasets.tar_index import Index
from lewm.datasets.tar_shards import ShardSource, Verify
from lewm.errors import UserError

MANIFEST_BYTES = 2**30
STREAMS = 8  # indexes fetched at a time
FETCHING = "shards fetched ahead"  # name of the threads


class RemoteSource(ShardSource):
    """See `schema.Source`. Its `path` is the folder of the cache.

    Opening fetches manifest and indexes. Actions are read by ranges of bytes, so that statistics fetch no shard; a
    shard is fetched, verified and mapped when a frame or another column of it is read.
    """

    def __init__(self, url: str, *, cache: str | None = None, verify: Verify = "sizes") -> None:
        self.remote = RemoteFolder(url)
        manifest = read_remote_manifest(self.remote)
        folder = cache_folder(cache_root(cache), self.remote, manifest)
        self.cache = ShardCache(self.remote, folder, whole_bytes=sum(s["bytes"] for s in manifest["shards"]))
        self._shards = {self.cache.folder / shard["file"]: shard for shard in manifest["shards"]}
        self._actions: dict[Path, list[bytes]] = {}
        with ThreadPoolExecutor(STREAMS) as pool:
            self._fetched = dict(zip(self._shards, pool.map(self.cache.index, self._shards.values()), strict=True))
        super().__init__(self.cache.folder, manifest=manifest, verify=verify)

    def damage(self) -> Any:
        """Fetch every shard, then read every byte of them; one line for each thing that is wrong."""
        for shard in self.manifest["shards"]:
            self.cache.shard(shard)
        yield from super().damage()

    def _checked_size(self, shard: dict[str, Any]) -> Path:
        return self.cache.folder / shard["file"]

    def _index_of(self, tar: Path, shard: dict[str, Any]) -> Index:
        return self._fetched[tar]

    def _check_meta(self, episode: int) -> None:
        """Nothing: a shard is compared with its sha256 when it comes."""

    def _bytes(self, episode: int, ext: str) -> memoryview:
        tar, _ = self.located(episode)  # its index is compared before anything is read by it
        if ext == "action.npy" and tar not in self._maps and not self.cache.has(self._shards[tar]):
            try:
                if tar not in self._actions:
                    self._actions[tar] = self.cache.members(self._shards[tar], self._fetched[tar], ext)
                return memoryview(self._actions[tar][episode - int(self._first[self._shard_of(episode)])])
            except UnusableFile:  # no ranges: the whole shard, then
                pass
        return super()._bytes(episode, ext)

    def _map(self, tar: Path) -> Any:
        if tar not in self._maps:
            self.cache.shard(self._shards[tar])
            self._actions.pop(tar, None)
        return super()._map(tar)


class FetchAhead:
    """Fetches, beside training, the shards of the window that is drawn from and of the one after it.

    Called with an epoch and the clips drawn in it. `rank` of `world` begins at its own share of a window, so that ranks
    that share a cache do not wait for each other. What fails here is said by whoever needs the shard.
    """

    def __init__(
        self, source: RemoteSource, clips: np.ndarray, *, seed: int, window: int, rank: int = 0, world: int = 1
    ) -> None:
        self.source, self.clips, self.seed, self.window = source, clips, seed, window
        self.rank, self.world = rank, world
        self._begun: set[tuple[int, int]] = set()

    def __call__(self, epoch: int, drawn: int) -> threading.Thread | None:
        windows = shard_windows(self.seed, epoch, len(self.clips), self.window)
        ends = np.cumsum([int(self.clips[shards].sum()) for shards in windows])
        here = int(np.searchsorted(ends, drawn, side="right"))
        if (epoch, here) in self._begun:
            return None
        self._begun.add((epoch, here))
        wanted = [self._rotated(shards) for shards in windows[here : here + 2]]
        thread = threading.Thread(target=self._fetch, args=(np.concatenate(wanted),), name=FETCHING, daemon=True)
        thread.start()
        return thread

    def _rotated(self, shards: np.ndarray) -> np.ndarray:
        needed = shards[self.clips[shards] > 0]
        return np.roll(needed, -(len(needed) * self.rank // self.world))

    def _fetch(self, shards: np.ndarray) -> None:
        with suppress(NotFetched):
            for number in shards:
                self.source.cache.shard(self.source.manifest["shards"][number])


def read_remote_manifest(remote: RemoteFolder) -> dict[str, Any]:
    """The manifest behind a URL, read anew each time; UserError where there is none, or a damaged one."""
    found: list[dict[str, Any]] = []

    def check(path: Path) -> None:
        try:
            found.append(parse_manifest(path.read_bytes()))
        except UserError as error:
            raise UserError(f"{remote.shown}/{MANIFEST}: {error}") from error
        except ValueError as error:
            raise Differs(f"it is damaged ({error})") from error

    try:
        with TemporaryDirectory() as folder:
            remote.fetch(MANIFEST, Path(folder) / MANIFEST, limit=MANIFEST_BYTES, check=check)
    except OSError as error:
        why = error.strerror or error
        raise NotFetched(
            f"cannot keep {remote.shown}/{MANIFEST} in {gettempdir()}: {why}; free space there, or set TMPDIR"
        ) from error
    return found[-1]

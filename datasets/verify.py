"""Read every byte of a data set and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lewm.datasets.manifest import MANIFEST, read_manifest
from lewm.datasets.schema import Source, open_source
from lewm.datasets.tar_index import build_index, file_sha256
from lewm.datasets.tar_shards import ShardSource
from lewm.errors import UserError
from lewm.progress import track


def damage_at(path: str | Path) -> Iterator[str]:
    """The same of a path, also where the data cannot even be opened: then why not, and what is wrong with each file."""
    try:
        source = open_source(path)
    except UserError as error:
        if not Path(path).is_dir():
            raise
        yield str(error)
        yield from _damaged_files(Path(path))
        return
    yield from damage_of(source)


def _damaged_files(folder: Path) -> Iterator[str]:
    """One line for each shard that is missing or not as the manifest says."""
    try:
        shards = read_manifest(folder)["shards"]
    except UserError:  # said before
        return
    for shard in shards:
        tar = folder / shard["file"]
        if not tar.is_file():
            yield f"{tar.name}: missing"
            continue
        if file_sha256(tar) != shard["sha256"]:
            yield f"{tar.name}: sha256 differs from {MANIFEST}; {tar.stat().st_size} of {shard['bytes']} bytes"
        try:
            build_index(tar)
        except UserError as error:
            yield str(error)


def damage_of(source: Source) -> Iterator[str]:
    """One line for each thing that is wrong; HDF5 keeps no checksums, there only unreadable parts are found."""
    if isinstance(source, ShardSource):
        yield from source.damage()
        return
    for e in track(range(len(source.lengths)), "reading episodes"):
        try:
            source.frames(e, np.arange(source.lengths[e]))
            for name in source.columns:
                source.column(name, e)
        except (UserError, OSError) as error:
            yield f"episode {e} ({source.keys[e]}): {error}"

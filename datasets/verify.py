"""Read every byte of a data set and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lewm.datasets.schema import Source
from lewm.datasets.tar_shards import ShardSource
from lewm.errors import UserError
from lewm.progress import track


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

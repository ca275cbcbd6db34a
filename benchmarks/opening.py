"""Opening a data set of a million episodes beside the peer's reader. python benchmarks/opening.py [--episodes 1000000]

Only what opening reads exists: for us a manifest of 1,000 shards and files of the sizes it names, empty on disk; for
the peer an HDF5 file with the lengths alone, of a twentieth of the episodes: its list of tuples would not fit into the
memory of a small machine. The clips of a training run are numbered on both sides. Memory is what the process grew by
beyond its imports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from alternation import alternate, arguments, peak_mib, seconds, serve
from peer import guard

SHARDS, FRAMES, FRAMESKIP = 1000, 4, 5
SHARD_BYTES = 2**30
PEERS_PART = 20


def lengths_of(episodes: int) -> list[int]:
    """Steps of each episode."""
    import numpy as np

    return np.random.default_rng(0).integers(50, 300, episodes).tolist()


def write_ours(folder: Path, episodes: int) -> None:
    """A manifest as the writer leaves it, and sparse files."""
    from lewm.datasets.manifest import CHECKSUM, FORMAT, MANIFEST, checksum_of

    folder.mkdir()
    lengths, shards = lengths_of(episodes), []
    for number in range(SHARDS):
        low, high = number * episodes // SHARDS, (number + 1) * episodes // SHARDS
        name = f"shard-{number:06d}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(SHARD_BYTES)
        shards.append(
            {
                "file": name,
                "episodes": high - low,
                "lengths": lengths[low:high],
                "keys": [str(e) for e in range(low, high)],
                "bytes": SHARD_BYTES,
                "sha256": f"{number:064x}",
                "index": f"{number:032x}",
            }
        )
    manifest = {
        "format": FORMAT,
        "fingerprint": "synthetic",
        "codec": "zstd",
        "frame_shape": [224, 224, 3],
        "columns": {"action": {"dtype": "<f4", "shape": [2]}},
        "shards": shards,
    }
    manifest[CHECKSUM] = checksum_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def write_peers(path: Path, episodes: int) -> None:
    """Lengths and offsets, and columns without a row."""
    import h5py
    import numpy as np

    lengths = np.array(lengths_of(episodes), dtype=np.int32)
    with h5py.File(path, "w", libver="latest") as file:
        file["ep_len"], file["ep_offset"] = lengths, np.cumsum(lengths, dtype=np.int64) - lengths
        file.create_dataset("action", shape=(0, 2), maxshape=(None, 2), dtype=np.float32)


def ours(path: str) -> None:
    import lewm.datasets.datamodule as data
    from lewm.datasets.clips import ClipDataset
    from lewm.datasets.tar_shards import ShardSource

    assert data
    import numpy as np

    before = peak_mib()
    kept: list[ClipDataset] = []

    def once() -> dict[str, float]:
        kept.clear()

        def opened() -> None:
            source = ShardSource(path)
            kept.append(ClipDataset(source, np.arange(len(source.keys)), num_frames=FRAMES, frameskip=FRAMESKIP))

        took = seconds(opened)
        return {"seconds": took, "mib": peak_mib() - before, "clips": len(kept[0]), "episodes": len(kept[0].starts)}

    serve(once)


def peer(path: str) -> None:
    guard()
    from stable_worldmodel.data.formats.hdf5 import HDF5Dataset

    before = peak_mib()
    kept: list[HDF5Dataset] = []

    def once() -> dict[str, float]:
        kept.clear()
        took = seconds(lambda: kept.append(HDF5Dataset(path=path, frameskip=FRAMESKIP, num_steps=FRAMES)))
        return {"seconds": took, "mib": peak_mib() - before, "clips": len(kept[0]), "episodes": len(kept[0].lengths)}

    serve(once)


def main() -> None:
    """Run a side, or both."""
    parser = arguments(__doc__)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--path")
    given = parser.parse_args()
    if given.side:
        return (peer if given.side == "peer" else ours)(given.path)
    with tempfile.TemporaryDirectory() as scratch:
        folder, file = Path(scratch) / "shards", Path(scratch) / "lengths.h5"
        write_ours(folder, given.episodes)
        write_peers(file, given.episodes // PEERS_PART)
        sides = alternate(("ours", "peer"), given, {"ours": [f"--path={folder}"], "peer": [f"--path={file}"]})
    for side in sides.values():
        first = side.found[0]
        print(
            f"{side.name:5s} {first['episodes']:,.0f} episodes, {first['clips']:,.0f} clips: {side.median():.2f} s "
            f"({side.spread()}), {first['mib']:.0f} MiB at the first opening"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

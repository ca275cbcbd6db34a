"""Random clips through the DataLoader, beside the peer's HDF5 and Lance readers. python benchmarks/loader.py FILE.h5

Clips of 4 frames at frameskip 5, frames and actions only, 64 a batch, shuffled, with 0 and 2 workers on each side; the
file is in the operating system's cache. Our shards are those of `lewm convert`. Batches fetched before the clock
starts, 2 for each worker, are left out of the count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alternation import alternate, arguments, serve
from peer import guard, peer_python

if any("peer" in word for word in sys.argv):
    guard()  # here too, as spawned workers begin with this file

BATCH, FRAMES, FRAMESKIP = 64, 4, 5
BATCHES = 24  # timed at a time
CODECS = ("raw", "zstd", "png")


def served(loader: Callable[[], Iterator[Any]], workers: int) -> None:
    """Serve clips a second of an endless loader."""

    def once() -> dict[str, float]:
        batches = loader()
        for _ in range(1 + 2 * workers):  # workers are awake, and what they fetched ahead is gone
            next(batches)
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        return {"clips": BATCHES * BATCH / (time.perf_counter() - start)}

    serve(once)


def endless(make: Callable[[], Any]) -> Iterator[Any]:
    """Batches of epoch after epoch."""
    while True:
        yield from make()


def ours(path: str, workers: int) -> None:
    from lewm.allocator import keep_freed
    from lewm.datasets.datamodule import ClipDataModule

    keep_freed()  # as `lewm fit` does
    data = ClipDataModule(path, global_batch=BATCH, num_frames=FRAMES, frameskip=FRAMESKIP, num_workers=workers)
    served(lambda: endless(data.train_dataloader), workers)


def peer(path: str, workers: int) -> None:
    guard()
    from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
    from torch.utils.data import DataLoader

    settings: dict[str, Any] = {"frameskip": FRAMESKIP, "num_steps": FRAMES, "keys_to_load": ["pixels", "action"]}
    if path.endswith(".h5"):
        data: Any = HDF5Dataset(path=path, **settings)
    else:
        from stable_worldmodel.data.formats.lance import LanceDataset

        data = LanceDataset(path=path, **settings)
    # Lance runs threads of its own, which a fork would lose: its workers end without a word.
    start = "spawn" if workers and not path.endswith(".h5") else None
    loader = DataLoader(
        data, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, multiprocessing_context=start
    )
    served(lambda: endless(lambda: loader), workers)


def write_lance(source: str, target: str) -> None:
    """The peer's own table of the same episodes, in the peer's process."""
    guard()
    import h5py
    import hdf5plugin  # noqa: F401
    from stable_worldmodel.data.formats.lance import LanceWriter

    with h5py.File(source) as file, LanceWriter(target) as writer:
        columns = [name for name in file if name not in ("ep_len", "ep_offset")]
        for low, length in zip(file["ep_offset"][:], file["ep_len"][:], strict=True):
            writer.write_episode({name: list(file[name][low : low + length]) for name in columns})


def size_of(path: Path) -> float:
    """Bytes on disk, in 10^6."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Run a side, or all of them."""
    parser = arguments(__doc__)
    parser.add_argument("file")
    parser.add_argument("--path", help="what this side reads")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--lance", help="write the peer's table there")
    given = parser.parse_args()
    if given.lance:
        return write_lance(given.file, given.lance)
    if given.side:
        return (peer if given.side.startswith("peer") else ours)(given.path, given.workers)
    with tempfile.TemporaryDirectory() as scratch:
        report(given, Path(scratch))


def report(given: Any, scratch: Path) -> None:
    """Convert, ask all, print a line each."""
    from lewm.datasets.convert import convert

    places = {"peer HDF5": Path(given.file), "peer Lance": scratch / "table.lance"}
    subprocess.run([peer_python(), __file__, given.file, "--lance", str(places["peer Lance"])], check=True)
    for codec in CODECS:
        places[f"ours {codec}"] = scratch / codec
        convert(given.file, scratch / codec, codec=codec)
    own = {
        f"{name}, {n} workers": [f"--path={path}", f"--workers={n}"] for name, path in places.items() for n in (0, 2)
    }
    sides = alternate(own, given, own)
    speeds = {name: max(sides[f"{name}, {n} workers"].median("clips") for n in (0, 2)) for name in places}
    best = max(speeds["peer HDF5"], speeds["peer Lance"])
    for name, path in places.items():
        each = ", ".join(f"{sides[f'{name}, {n} workers'].median('clips'):.0f} with {n}" for n in (0, 2))
        print(
            f"{name:10s} {speeds[name]:6.0f} clips/s ({each} workers), {speeds[name] / best:.2f} x the peer's best, "
            f"{size_of(path):.1f} MB"
        )


if __name__ == "__main__":
    os.environ.setdefault("RUST_LOG", "error")
    sys.exit(main())

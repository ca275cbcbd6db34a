"""How many clips a second does each source give, beside raw shards? python benchmarks/loader.py FILE.h5."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule


def clips_per_second(path: Path, batches: int = 40) -> float:
    """Training clips a second, one process, batches of 64, after one batch of warming."""
    data = ClipDataModule(str(path), global_batch=64, num_workers=0)
    loader = iter(data.train_dataloader())
    next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * 64 / (time.perf_counter() - start)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give an HDF5 file: python benchmarks/loader.py FILE.h5")
    source = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        speeds = {"HDF5 as it is": clips_per_second(source)}
        for codec in ("raw", "zstd", "png"):
            convert(source, Path(scratch) / codec, codec=codec)
            speeds[f"shards, {codec}"] = clips_per_second(Path(scratch) / codec)
    for name, speed in speeds.items():
        print(f"{name:16s} {speed:9.0f} clips/s  {speed / speeds['shards, raw']:.2f} of raw shards")

"""Do two processes follow one at the same global batch? The demo's first 20 losses: python benchmarks/ranks.py DATA."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = [
    "--config=demo",
    "--model.dropout=0",
    "--trainer.precision=32-true",
    "--trainer.max_steps=20",
    "--trainer.val_check_interval=1000",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.num_workers=0",
]


def losses(data: str, root: Path, *flags: str) -> list[float]:
    """Total loss of each of 20 steps, by the command line."""
    command = [sys.executable, "-m", "lewm", "fit", *FLAGS, f"--data.path={data}", f"--trainer.default_root_dir={root}"]
    subprocess.run([*command, *flags], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    (metrics,) = root.glob("demo/*/metrics.csv")
    with metrics.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give a data set: python benchmarks/ranks.py DATA")
    with tempfile.TemporaryDirectory() as scratch:
        one = losses(sys.argv[1], Path(scratch) / "one")
        two = losses(sys.argv[1], Path(scratch) / "two", "--trainer.devices=2", "--trainer.strategy=ddp")
    for step, (a, b) in enumerate(zip(one, two, strict=True)):
        print(f"step {step:2d}  one {a:.7f}  two {b:.7f}  difference {abs(a - b):.1e}")
    print(f"largest difference {max(abs(a - b) for a, b in zip(one, two, strict=True)):.2e}")

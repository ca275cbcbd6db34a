"""Do files of another tool train alike from HDF5 and shards? A row a file: python benchmarks/example_files.py DIR."""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from lewm.cli import main
from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule

SMALL = [
    "--model.embed_dim=32",
    "--model.projector_hidden=128",
    "--model.predictor_depth=2",
    "--model.predictor_heads=2",
    "--model.predictor_head_dim=32",
    "--model.predictor_mlp=128",
    "--model.dropout=0",
    "--model.sigreg_directions=128",
    "--model.lr=1e-3",
    "--data.global_batch=16",
    "--data.num_workers=0",
    "--trainer.max_steps=50",
    "--trainer.max_epochs=-1",
    "--trainer.precision=32-true",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
]


def losses(path: Path, root: Path, patch: int) -> list[float]:
    """Total loss of each of 50 steps."""
    encoder = f"--model.encoder_kwargs={{patch_size: {patch}, embed_dim: 96, depth: 2, num_heads: 3}}"
    flags = [f"--data.path={path}", f"--trainer.default_root_dir={root}", encoder, *SMALL]
    assert main(["fit", *flags]) == 0
    (metrics,) = root.glob("lewm/*/metrics.csv")
    with metrics.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def row(path: Path, scratch: Path) -> str:
    """Everything the table says about one file."""
    shards = scratch / path.stem
    convert(path, shards)
    one, other = (ClipDataModule(str(p), global_batch=16, num_workers=0) for p in (path, shards))
    numbers = np.random.default_rng(0).integers(0, len(one.train), 64).tolist()
    clips = all((a == b).all() for a, b in zip(one.train[numbers], other.train[numbers], strict=True))
    parts = all((one.episodes(p) == other.episodes(p)).all() for p in ("train", "val", "test"))
    patch = 28 if one.source.frame_shape[0] == 224 else 8
    a, b = losses(path, scratch / "a", patch), losses(shards, scratch / "b", patch)
    counts = f"{len(one.source.lengths)} | {len(one.train)} | {parts} | {one.interface == other.interface} | {clips}"
    return f"| {path.stem} | {counts} | {np.mean(a[:5]):.3f} | {np.mean(a[-5:]):.3f} | {a == b} |"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    lines = [
        "| file | episodes | train clips | same split | statistics | clips | loss, steps 1-5 | 46-50 | same losses |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("tworoom_64", "tworoom_nan_64", "tworoom_224", "pusht_64", "pusht_224", "reacher_64", "cube_64"):
        with tempfile.TemporaryDirectory() as scratch:
            lines.append(row(folder / f"{name}.h5", Path(scratch)))
    print("\n".join(lines))

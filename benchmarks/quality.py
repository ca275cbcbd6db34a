"""Wall time of training until a probe reads a quantity well enough. python benchmarks/quality.py DATA RUNS [FLAGS ...]

DATA is a collected data set (`lewm collect push_t --episodes 2000 --image-size 224 data/push_t` or any other), RUNS a
folder for the runs; FLAGS go to `lewm fit`. Once for each of `--frames` (clips longer than 4 frames let one encoding
serve more predictions) it trains, keeps a checkpoint every `--every` steps, and probes each on validation episodes with
a linear probe until `--reach` is met. Said is the time that training took up to there: its steps alone, with the wait
for data, without validation and saving.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

LEWM = [sys.executable, "-m", "lewm"]
HISTORY = 3  # frames that the predictor sees, as in the paper


def seconds_until(metrics: Path, step: int, batch: int) -> float:
    """Training time of the first `step` steps, from the speeds that the run logged every few steps."""
    took, before = 0.0, 0
    for row in csv.DictReader(metrics.open()):
        if speed := row.get("train/clips_per_s"):
            now = min(int(row["step"]) + 1, step)
            took += max(0, now - before) * batch / float(speed)
            before = max(now, before)
    return took


def train(given: argparse.Namespace, frames: int) -> Path:
    """A finished run; batches hold as many frames whatever a clip's length is."""
    batch = given.batch * 4 // frames
    folder = given.runs / f"frames{frames}"
    flags = [f"--data.path={given.data}", f"--data.num_frames={frames}", f"--data.global_batch={batch}"]
    flags += [f"--trainer.default_root_dir={folder}", f"--checkpoint_every={given.every}", "--keep=100000"]
    flags += [f"--model.history={HISTORY}"]  # longer clips give more windows, not longer ones
    subprocess.run([*LEWM, "fit", *flags, *given.flags], check=True)
    return max(folder.rglob("metrics.csv"), key=lambda file: file.stat().st_mtime).parent


def linear_r(checkpoint: Path, given: argparse.Namespace) -> float:
    """The quantity's correlation on validation episodes."""
    out = given.runs / "probe"
    probe = ["probe", checkpoint, f"--data={given.data}", "--split=val", f"--out={out}", f"--max_frames={given.probed}"]
    subprocess.run([*LEWM, *probe, "--layers=embedding"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "result.json").read_text())["targets"][given.quantity]["linear"]["r"]


def main() -> None:
    """Train and probe for each length of clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--batch", type=int, default=128, help="clips of 4 frames a step, or as many frames")
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--quantity", default="block_position")
    parser.add_argument("--reach", type=float, default=0.986)
    parser.add_argument("--probed", type=int, default=10_000, help="frames that a probe is trained on")
    given, given.flags = parser.parse_known_args()
    for frames in given.frames:
        run = train(given, frames)
        steps = {int(file.stem.split("=")[1]): file for file in (run / "checkpoints").glob("step=*.ckpt")}
        for step in sorted(steps):
            r = linear_r(steps[step], given)
            took = seconds_until(run / "metrics.csv", step, given.batch * 4 // frames)
            print(
                f"clips of {frames} frames, step {step}: {given.quantity} linear r {r:.4f} after {took:.0f} s",
                flush=True,
            )
            if r >= given.reach:
                break
        else:
            print(f"clips of {frames} frames: {given.reach} was not reached")


if __name__ == "__main__":
    main()

"""Everything that wants an accelerator, in one run. python benchmarks/accelerator.py FILE [--small] [--device cuda]

FILE holds 224 x 224 frames. The paper's model, in bfloat16 where the hardware computes in it: training beside the peer
and with the real loader, the share of the matrix rate that it reaches, SIGReg alone, a whole CEM plan (300 candidates,
30 iterations, 5 blocks) alone and for 50 episodes. Each figure stands beside the floor that the measured matrix rate
gives. With --small and --device cpu it says nothing about speed, but that it runs.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from alternation import add_precisions, arguments, precisions, seconds, synchronized
from floors import bandwidth, matrix_rate, step_gflop

HERE = Path(__file__).parent
STEPS = 60
FITTED = 224, 14  # frames and patches of the config `base`


def asked(script: str, *flags: str) -> None:
    """Run another benchmark, its lines among ours."""
    print(f"\n{script} {' '.join(flags)}", flush=True)
    subprocess.run([sys.executable, HERE / script, *flags], check=True)


def sigreg_seconds(clips: int, device: str) -> float:
    """Forward and backward of SIGReg alone, at this batch."""
    import torch

    from lewm.loss.sigreg import SIGReg

    sigreg, z = SIGReg().to(device), torch.randn(clips, 4, 192, device=device, requires_grad=True)
    work = synchronized(device, lambda: sigreg(z, 0).backward())
    return sorted(seconds(work) for _ in range(9))[4]


def data_wait(file: str, flags: list[str]) -> tuple[float, float]:
    """Frames a second and share of time waiting for data of `lewm fit` itself, without its first steps."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "shards"
        subprocess.run([sys.executable, "-m", "lewm", "convert", file, data], check=True)
        fit = ["fit", "--config", "base", f"--data.path={data}", f"--trainer.default_root_dir={scratch}/runs"]
        fit += [
            f"--trainer.max_steps={STEPS}",
            "--trainer.limit_val_batches=0",
            "--trainer.log_every_n_steps=10",
            *flags,
        ]
        subprocess.run([sys.executable, "-m", "lewm", *fit], check=True)
        (table,) = Path(scratch, "runs").rglob("metrics.csv")
        rows = [row for row in csv.DictReader(table.open()) if row.get("train/clips_per_s")][2:]
    mean = {
        name: sum(float(row[name]) for row in rows) / len(rows) for name in ("train/clips_per_s", "train/data_wait")
    }
    return 4 * mean["train/clips_per_s"], mean["train/data_wait"]


def main() -> None:
    """All of it."""
    parser = arguments(__doc__)
    add_precisions(parser)
    parser.set_defaults(device="cuda")
    parser.add_argument("file")
    parser.add_argument("--small", action="store_true")
    given: Any = parser.parse_args()
    from lewm.precision import MIXED, best_precision

    clips, image, patch = (4, 32, 8) if given.small else (128, 224, 14)
    precision = "bf16" if best_precision(given.device) == MIXED else "fp32"  # what `lewm fit` takes by itself
    rate = matrix_rate(given.device, precision)
    print(f"{given.device}: {rate:.0f} GFLOP/s in {precision}, {bandwidth(given.device):.0f} GB/s")
    work = step_gflop(image, patch, clips)
    print(
        f"a step of {clips} clips is {work:.0f} GFLOP: at least {1000 * work / rate:.1f} ms, "
        f"at most {clips * 4 * rate / work:.0f} frames/s"
    )
    print(f"SIGReg alone, forward and backward: {1000 * sigreg_seconds(clips, given.device):.2f} ms")
    size = [f"--device={given.device}", f"--image={image}", f"--patch={patch}", f"--rounds={given.rounds}"]
    size += ["--precisions", *precisions(given)]
    asked("step.py", f"--clips={clips}", *size)
    for episodes in (1, 2 if given.small else 50):
        asked("plan.py", f"--iterations={2 if given.small else 30}", f"--episodes={episodes}", *size)
    speed, wait = data_wait(given.file, ["--trainer.accelerator=cpu", "--data.global_batch=4"] if given.small else [])
    print(
        f"\nlewm fit, real loader: {speed:.0f} frames/s, {100 * wait:.1f} % of the time waiting for data, "
        f"{100 * speed / 4 * step_gflop(*FITTED, 1) / rate:.0f} % of the measured matrix rate"
    )


if __name__ == "__main__":
    main()

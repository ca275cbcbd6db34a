"""How long does the linear probe of a million embeddings take, and how much memory? python benchmarks/probe.py.

Timed: the fit on 80 % of the episodes with the strength chosen on 10 %, the prediction of the other 10 %, and r with
its 95 % interval over episodes; wall time, and the CPU time of all threads. Beside it scikit-learn's StandardScaler
and Ridge on the same float32 rows, at one strength and so without any choice, with the same r. Not timed: imports and
making the rows. Memory: the peak of a fresh process beyond its peak after the imports, rows included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

EPISODE = 100  # rows
R = 0.8  # correlation of the best linear reading with each of two targets
KINDS = {"lewm": "lewm, 9 strengths", "ridge": "scikit-learn, 1 strength"}


def embeddings(num: int, width: int, seed: int = 0):
    """Rows (num, width) and two targets, y = R u + sqrt(1 - R^2) e with u a projection of x; each of variance 1.

    Half of the variance of x and of e is common to the rows of an episode. Episode i is drawn from the key (seed, i).
    """
    import numpy as np

    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, 2)))[0].astype(np.float32)
    x, y = np.empty((num, width), np.float32), np.empty((num, 2))
    for i, low in enumerate(range(0, num, EPISODE)):
        rng, rows = np.random.default_rng((seed, i)), slice(low, low + EPISODE)
        drawn = rng.standard_normal((len(x[rows]), width + 2), np.float32) + rng.standard_normal(width + 2, np.float32)
        drawn /= np.sqrt(2)
        x[rows] = drawn[:, :width]
        y[rows] = R * x[rows] @ axes + np.sqrt(1 - R**2) * drawn[:, width:]
    return x, y, np.arange(num) // EPISODE


def measure(kind: str, num: int, width: int) -> dict[str, float]:
    """Seconds, GiB beyond the imports and the interval of r, in this process."""
    import scipy.linalg
    import scipy.stats  # noqa: F401
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from lewm.probes.linear import fit_linear
    from lewm.probes.seams import Rows
    from lewm.probes.statistics import pearson_interval

    imported = peak()
    x, y, episode = embeddings(num, width)
    first, second = (EPISODE * (num * tenths // (10 * EPISODE)) for tenths in (8, 9))  # whole episodes
    train, val, test = (
        Rows(x[part], y[part], episode[part]) for part in (slice(first), slice(first, second), slice(second, num))
    )
    start, cpu = time.perf_counter(), time.process_time()
    if kind == "lewm":
        read = fit_linear(train, val).predict(test.x)
    else:
        read = make_pipeline(StandardScaler(), Ridge(1.0, solver="cholesky")).fit(train.x, train.y).predict(test.x)
    low, high, _ = pearson_interval(test.y, read, test.episode)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "gib": peak() - imported, "low": low, "high": high}


def peak() -> float:
    """This process's largest resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_child(kind: str, num: int, width: int) -> dict[str, float]:
    """`measure` in a fresh process; this one stays small, since a child's peak starts from its parent's size."""
    command = [sys.executable, __file__, f"--rows={num}", f"--width={width}", f"--measure={kind}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.rows, args.width)))
        sys.exit()
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):  # in alternation
        for kind in KINDS:
            runs[kind].append(in_child(kind, args.rows, args.width))
    array = args.rows * args.width * 4 / 2**30
    print(f"{args.rows} rows of {args.width} ({array:.2f} GiB of float32); median of {args.repeats}; the true r is {R}")
    for kind, name in KINDS.items():
        found = {key: median(run[key] for run in runs[kind]) for key in runs[kind][0]}
        spent = f"{found['seconds']:6.2f} s  {found['cpu']:6.2f} CPU s  {found['gib']:5.2f} GiB"
        print(f"{name:24s} {spent}  r in [{found['low']:.4f}, {found['high']:.4f}]")

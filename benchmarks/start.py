"""Seconds of `lewm --help`, a process each time. python benchmarks/start.py"""

from __future__ import annotations

import statistics
import subprocess
import sys

from alternation import arguments, seconds


def main() -> None:
    """Time it, the first time left out."""
    given = arguments(__doc__).parse_args()
    command = [sys.executable, "-m", "lewm", "--help"]
    took = [
        seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(given.rounds + 1)
    ]
    print(f"lewm --help: {statistics.median(took[1:]):.3f} s ({min(took[1:]):.3f} to {max(took[1:]):.3f})")


if __name__ == "__main__":
    main()

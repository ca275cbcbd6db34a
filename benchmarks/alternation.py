"""Two sides of a question timed in alternation, each in a process and an environment of its own.

A benchmark is a file with one function a side. Run plainly it starts itself once for each side, asks them in turn and
prints medians and their ratio; started with `--side` it is such a process: it sets up, then does the work once for
every line it is sent and answers with what it found. A side that waits takes no processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from peer import peer_python

Work = Callable[[], dict[str, float]]  # does it once; seconds, and whatever else is to be compared
ANSWER = "answer: "  # what a side prints besides is no answer


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass
class Side:
    """A process that does its side's work when asked."""

    name: str
    command: list[str]
    found: list[dict[str, float]] = field(default_factory=list)

    def __enter__(self) -> Side:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)
        self.answer()  # it is set up
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ask(self) -> dict[str, float]:
        """Do it once more."""
        assert self.process.stdin is not None
        print("once", file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        """What it says next."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        sys.exit(f"{self.name} ended without an answer: {' '.join(self.command)}")

    def median(self, what: str = "seconds") -> float:
        """Of what was found, the first round left out: it warms caches."""
        return statistics.median(one[what] for one in self.found[1:])

    def spread(self, what: str = "seconds") -> str:
        """Least and largest, the first round left out."""
        values = [one[what] for one in self.found[1:]]
        return f"{min(values):.4g} to {max(values):.4g}"


def alternate(
    sides: Iterable[str], given: argparse.Namespace, own: dict[str, list[str]] | None = None
) -> dict[str, Side]:
    """Ask each side once to warm up and then `--rounds` times in turn.

    Each gets the command line of this process, and what `own` has for it. Sides whose name begins with `peer` run in
    the peer's environment.
    """
    started: dict[str, Side] = {}
    try:
        for name in sides:
            python = str(peer_python()) if name.startswith("peer") else sys.executable
            command = [python, *sys.argv, "--side", name, *(own or {}).get(name, [])]
            started[name] = Side(name, command).__enter__()
        for _ in range(given.rounds + 1):
            for side in started.values():
                side.found.append(side.ask())
    finally:
        for side in started.values():
            side.__exit__()
    return started


def serve(work: Work) -> None:
    """Be a side: say that all is set up, then do the work for every line that comes."""
    print(ANSWER + json.dumps({}), flush=True)
    for _ in sys.stdin:
        print(ANSWER + json.dumps(work()), flush=True)


def use_threads(num: int) -> None:
    """As many threads in torch as asked for."""
    import torch

    torch.set_num_threads(num)


def synchronized(device: str, work: Callable[[], Any]) -> Callable[[], Any]:
    """The same work, ended when the device has done it."""
    if not device.startswith("cuda"):
        return work

    def done() -> Any:
        import torch

        found = work()
        torch.cuda.synchronize()
        return found

    return done


def add_precisions(parser: argparse.ArgumentParser) -> None:
    """`--precisions`: those in which sides are run; a side's name ends in its own."""
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "bf16"),
        help="float32, and autocast to bfloat16; without it, what the hardware computes in",
    )


def precisions(given: argparse.Namespace) -> list[str]:
    """Those asked for; else float32, and bfloat16 where the hardware computes in it."""
    from lewm.precision import MIXED, best_precision

    return given.precisions or ["fp32", *(["bf16"] if best_precision(given.device) == MIXED else [])]


def best_of(sides: dict[str, Side], name: str) -> Side:
    """The fastest of the sides whose names begin so."""
    return min((side for side in sides.values() if side.name.startswith(name)), key=lambda side: side.median())


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def arguments(about: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--side", help="be this side and wait for orders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    return parser

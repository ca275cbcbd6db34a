"""How a loader's worker takes signals that a terminal or a scheduler sends to every process of a run."""

from __future__ import annotations

import os
import signal
from typing import Any

GRACE_S = 30  # after SIGTERM, in which the run ends its batch, saves and ends its workers


def outlive_signals(worker: int) -> None:
    """Let a worker live until its run has saved: for `worker_init_fn` of a DataLoader.

    Ctrl-C and SIGUSR1 are left to the run. After SIGTERM a worker ends only when the grace is over, so that one whose
    run is gone does not stay, or at a second one, which is the run's own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _later)


def _later(number: int, frame: Any) -> None:
    if signal.alarm(GRACE_S):  # seconds that an earlier alarm had left
        os._exit(0)

"""A loader's workers: signals that are sent to every process of a run, and a worker that the system ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

SENT_TO_ALL = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
NOTICED_S = 0.2  # until a worker has noticed a signal
NEWS_S = 5  # at most, between a worker's sockets being closed and its end being told
GRACE_S = 30  # after SIGTERM, in which the run ends its batch, saves and ends its workers


@contextmanager
def signals_held() -> Iterator[None]:
    """Start workers inside: a signal waits until its worker has got to `outlive_signals`, which ends the waiting.

    A worker has the mask of the thread that starts it. The run itself gets signals in another thread, or after this.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SENT_TO_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)  # before multiprocessing's own, which asks once and waits


def _end_workers() -> None:
    """Ask workers once where the program ends with a loader in hand, so that when they are asked again none stays."""
    daemons = [child for child in multiprocessing.active_children() if child.daemon]
    for child in daemons:
        child.terminate()
    time.sleep(NOTICED_S if daemons else 0)


def outlive_signals(worker: int) -> None:
    """Let a worker live until its run has saved: for `worker_init_fn` of a DataLoader.

    Ctrl-C and SIGUSR1 are left to the run. After SIGTERM a worker ends only when the grace is over, so that one whose
    run is gone does not stay, or at a second one, which is the run's own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _later)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT_TO_ALL)


def _later(number: int, frame: Any) -> None:
    if signal.alarm(GRACE_S):  # seconds that an earlier alarm had left
        os._exit(0)


def lost_workers_named(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of a loader with workers; where one of these is killed while it hands a batch over, its end is told.

    Its socket is closed a moment before the system tells of its end, and the error of the socket would say nothing.
    torch raises where it is told, in the handler of SIGCHLD; what is raised inside a destructor is lost, though.

    Raises:
        RuntimeError: names the worker's process.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            if not str(error).startswith(
                ("Caught ", "DataLoader worker")
            ):  # of a living worker; of torch, in so many words
                _name_the_lost(workers, error)
            raise
        yield batch


def _name_the_lost(workers: list[BaseProcess], error: Exception) -> None:
    """RuntimeError as soon as one of these processes has ended otherwise than well, within `NEWS_S`."""
    end = time.monotonic() + NEWS_S
    while time.monotonic() < end:
        for worker in workers:
            if worker.exitcode:
                raise RuntimeError(
                    f"DataLoader worker (pid {worker.pid}) ended with exit code {worker.exitcode}"
                ) from error
        time.sleep(0.02)

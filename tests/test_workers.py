"""Signals that meet a loader's workers before they are ready for them, and workers that end at a bad moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from torch.utils.data import dataloader
from torch.utils.data._utils import signal_handling

from lewm.datasets import workers
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.workers import lost_workers_named


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_that_comes_before_a_worker_is_ready_does_not_end_it(flat_file, monkeypatch, number):
    install = signal_handling._set_worker_signal_handlers

    def signalled() -> None:
        install()
        os.kill(os.getpid(), number)  # in the worker, before it has set anything of ours

    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", signalled)
    data = ClipDataModule(str(flat_file), global_batch=4, num_frames=2, frameskip=1, num_workers=1)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.pixels) == 4


def test_the_run_itself_takes_signals_as_before(flat_file):
    data = ClipDataModule(str(flat_file), global_batch=4, num_frames=2, frameskip=1, num_workers=1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    next(iter(data.train_dataloader()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_worker_killed_while_it_hands_over_a_batch_is_named(flat_file, monkeypatch):
    killed = []

    def cut(batches, *args) -> None:  # its sockets are closed before the system tells of its end
        killed.append(batches._workers[0].pid)
        threading.Timer(0.2, os.kill, (killed[0], signal.SIGKILL)).start()
        raise ConnectionResetError(104, "Connection reset by peer")

    data = ClipDataModule(str(flat_file), global_batch=4, num_frames=2, frameskip=1, num_workers=1)
    batches = iter(data.train_dataloader())
    next(batches)
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", cut)
    with pytest.raises(RuntimeError, match="DataLoader worker") as raised:
        next(batches)
    assert f"{killed[0]}" in str(raised.value)


@pytest.mark.parametrize("wait", [0, 2])
def test_a_killed_worker_is_named_though_nothing_else_tells_of_its_end(wait):
    started = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    started.start()

    def batches():
        yield 0
        later = threading.Timer(wait, os.kill, (started.pid, signal.SIGKILL))
        later.start()
        raise ConnectionResetError("Connection reset by peer")

    loader = lost_workers_named(batches())
    assert next(loader) == 0
    with pytest.raises(
        RuntimeError, match=rf"DataLoader worker \(pid {started.pid}\) ended with exit code -9"
    ) as caught:
        next(loader)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_an_error_beside_living_workers_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(workers, "NEWS_S", 0.1)
    started = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    started.start()

    def batches():
        raise OSError("another")
        yield

    with pytest.raises(OSError, match="another"):
        next(lost_workers_named(batches()))
    started.kill()


def test_a_script_that_ends_with_a_loader_in_hand_does_not_wait_for_its_workers(flat_file):
    code = "import sys; from lewm.datasets import workers; from lewm.datasets.datamodule import ClipDataModule\n"
    code += "workers.GRACE_S = 10**6\n"
    code += "data = ClipDataModule(sys.argv[1], global_batch=4, num_frames=2, frameskip=1, num_workers=1)\n"
    code += "batches = iter(data.train_dataloader()); next(batches)\n"
    done = subprocess.run([sys.executable, "-c", code, str(flat_file)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and not done.stderr

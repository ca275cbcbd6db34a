"""A disk that is really full: a small one is mounted, and filled by something else while a run saves to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import flat_columns
from test_fit import final_weights, fit, losses, run_of

from lewm import checkpoint
from lewm.datasets.datamodule import ClipDataset

STEPS = (
    "--trainer.max_epochs=-1",
    "--trainer.max_steps=11",
    "--trainer.log_every_n_steps=1",
    "--trainer.limit_val_batches=0",
    "--model.dropout=0.1",
    "--checkpoint_every=3",
    "--keep=5",
)


@pytest.fixture
def data(write_flat) -> Path:
    return write_flat(flat_columns([16] * 10))


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A mounted disk of 8 MiB; skipped where nothing may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # -l: a logger may still hold a file
    assert not folder.is_mount()


def leave_free(disk: Path, num_bytes: int) -> Path:
    """Fill the disk up to so many bytes; the file that fills it."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while (too_much := free(disk) - num_bytes) > 0:
            file.write(bytes(min(too_much, 2**16)))
    return ballast


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def at_fetch(monkeypatch, number: int, do) -> None:
    """Do something when the n-th training batch is fetched."""
    fetch, fetched = ClipDataset.__getitem__, []

    def counting(self, clips):
        fetched.append(clips)
        if len(fetched) == number:
            do()
        return fetch(self, clips)

    monkeypatch.setattr(ClipDataset, "__getitem__", counting)


def test_a_save_to_a_full_disk_ends_the_run_with_one_line_and_it_goes_on_once_there_is_space(
    data, disk, tmp_path, capsys
):
    assert fit(data, tmp_path / "whole", *STEPS) == 0
    whole = run_of(tmp_path / "whole")
    size = checkpoint.resolve(whole).stat().st_size
    ballast = leave_free(disk, int(2.6 * size))
    capsys.readouterr()
    assert fit(data, disk, *STEPS) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "step=9.ckpt: No space left on device: it needs" in line
    needed = float(line.split("it needs ")[1].split(" MiB")[0])
    assert needed == pytest.approx(size / 2**20, abs=0.1)
    run = run_of(disk)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step=3.ckpt", "step=6.ckpt"}
    assert all(checkpoint.read(path)["global_step"] for path in (run / "checkpoints").iterdir())
    assert not list(disk.rglob(".*.tmp"))
    ballast.unlink()
    assert fit(data, disk, *STEPS, "--resume=auto") == 0
    a, b = final_weights(run_of(disk)), final_weights(whole)
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert losses(run) == losses(whole)


@pytest.mark.slow
def test_a_disk_on_which_not_even_a_row_of_the_log_fits_ends_the_run_with_one_line(
    data, disk, tmp_path, monkeypatch, capsys
):
    longer = (*STEPS, "--trainer.max_steps=60", "--checkpoint_every=30")
    assert fit(data, tmp_path / "whole", *longer) == 0
    capsys.readouterr()
    with monkeypatch.context() as patched:
        at_fetch(patched, 32, lambda: leave_free(disk, 0))
        assert fit(data, disk, *longer) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert str(run_of(disk)) in line
    (disk / "ballast").unlink()
    assert fit(data, disk, *longer, "--resume=auto") == 0
    a, b = (final_weights(run_of(root)) for root in (disk, tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert losses(run_of(disk)) == losses(run_of(tmp_path / "whole"))

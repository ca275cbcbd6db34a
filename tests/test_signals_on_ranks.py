"""A scheduler's signal to some or all ranks: all leave after the same step, with one checkpoint, and go on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback
from test_nodes import Ranks, command, data, of_torchrun, ranks  # noqa: F401 (two of them are fixtures)

from lewm.cli import main

RARELY = "--checkpoint_every=100000"  # so that the checkpoint there is was saved for the signal


class NoteClips(Callback):
    """Appends the clips of every step that this rank has done to a file, a line a step."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with Path(f"{self.path}.{trainer.global_rank}").open("a") as file:
            file.write(" ".join(map(str, batch.index.tolist())) + "\n")


def noted(path: Path) -> list[str]:
    """How a rank's notes are asked for."""
    return [f"--trainer.callbacks={__name__}.NoteClips", f"--trainer.callbacks.path={path}"]


def clips(path: Path, world: int) -> list[list[int]]:
    """Clips of every step in the order of the global batch: rank r has every world-th from the r-th on."""
    lines = [Path(f"{path}.{rank}").read_text().splitlines() for rank in range(world)]
    assert len({len(mine) for mine in lines}) == 1, "ranks took different numbers of steps"
    batches = [[[int(clip) for clip in line.split()] for line in step] for step in zip(*lines, strict=True)]
    return [[clip for clips_of_ranks in zip(*parts, strict=True) for clip in clips_of_ranks] for parts in batches]


def wait_for_steps(path: Path, rank: int, number: int) -> None:
    end, file = time.monotonic() + 300, Path(f"{path}.{rank}")
    while not file.exists() or len(file.read_text().splitlines()) < number:
        assert time.monotonic() < end, f"rank {rank} did not take {number} steps in five minutes"
        time.sleep(0.02)


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("lewm/*/checkpoints/*"))


def uninterrupted(file: Path, root: Path, steps: int) -> list[list[int]]:
    """Clips of a run of one process that nobody stopped."""
    assert main(command(file, root, RARELY, f"--trainer.max_steps={steps}", *noted(root / "clips"))) == 0
    return clips(root / "clips", 1)


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGUSR1, [1]), (signal.SIGTERM, [0, 1])], ids=["SIGUSR1 to one", "SIGTERM to both"]
)
def test_all_ranks_save_once_and_leave_and_go_on_with_the_clips_of_an_uninterrupted_run(
    data,  # noqa: F811
    tmp_path,
    ranks: Callable[..., Ranks],  # noqa: F811
    number,
    told,
):
    own = ["--trainer.num_nodes=2", "--trainer.strategy=ddp", RARELY, *noted(tmp_path / "clips")]
    job = ranks(of_torchrun, 2)
    job.start(*[command(data, tmp_path, *own, "--trainer.max_steps=100000")] * 2)
    wait_for_steps(tmp_path / "clips", 1, 3)
    for rank in told:
        os.kill(job.processes[rank].pid, number)
    assert job.codes([0, 1]) == [143, 143]
    assert job.errors() == []
    done = len(clips(tmp_path / "clips", 2))
    assert checkpoints(tmp_path) == [f"step={done}.ckpt"]

    steps, again = done + 3, ranks(of_torchrun, 2)
    again.start(*[command(data, tmp_path, *own, f"--trainer.max_steps={steps}", "--resume=auto")] * 2)
    assert again.codes([0, 1]) == [0, 0]
    assert clips(tmp_path / "clips", 2) == uninterrupted(data, tmp_path / "one", steps)


@pytest.mark.slow
def test_ranks_that_the_first_process_started_leave_with_it_after_a_signal_and_go_on_exactly(data, tmp_path):  # noqa: F811
    own = ["--trainer.devices=2", "--trainer.strategy=ddp", RARELY, *noted(tmp_path / "clips")]

    def started(*flags: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "lewm", *command(data, tmp_path, *own, *flags)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = started("--trainer.max_steps=100000")
    wait_for_steps(tmp_path / "clips", 1, 3)
    first.terminate()
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 143, said
    assert "lewm: error" not in said
    done = len(clips(tmp_path / "clips", 2))
    assert checkpoints(tmp_path) == [f"step={done}.ckpt"]
    second = started(f"--trainer.max_steps={done + 3}", "--resume=auto")
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert clips(tmp_path / "clips", 2) == uninterrupted(data, tmp_path / "one", done + 3)

"""Ranks that a launcher started, as two nodes on one machine: one run, one voice, no hang when one is lost."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_FLAGS, write_walks

from lewm import checkpoint
from lewm.cli import main

TORCHRUN = Path(__file__).parents[1] / "docs" / "slurm" / "torchrun.sh"
KILL_S = 60  # seconds in which the others leave once a rank is killed: its connections are closed at once
SLACK_S = 30  # and beyond --timeout_s where one hangs
ENDLESS = ("--trainer.max_steps=100000", "--checkpoint_every=3")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_walks(tmp_path_factory.mktemp("data") / "walk.h5", 20)


def command(data: Path, root: Path, *flags: str) -> list[str]:
    own = (f"--data.path={data}", "--data.frameskip=2", f"--trainer.default_root_dir={root}")
    steps = ("--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0")
    return ["fit", *TINY_FLAGS, *own, *steps, *flags]


def losses(root: Path) -> list[float]:
    (run,) = (root / "lewm").iterdir()
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.fixture
def nodes() -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Starts docs/slurm/torchrun.sh with words for `lewm fit`, as on two nodes of one GPU each."""
    started: list[subprocess.Popen[str]] = []

    def start(words: list[str]) -> list[subprocess.Popen[str]]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        job = {"HEAD": "127.0.0.1", "NODES": "2", "GPUS": "1", "PORT": str(free_port())}
        for rank in range(2):
            own = os.environ | job | {"NODE_RANK": str(rank), "OMP_NUM_THREADS": "1", "PATH": path}
            pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            started.append(subprocess.Popen(["bash", str(TORCHRUN), *words], env=own, **pipes))
        return started

    yield start
    for node in started:
        node.terminate()  # torchrun ends its own
        node.communicate()


def worker_of(node: subprocess.Popen[str]) -> int:
    """Process number of the one rank that a node's torchrun started."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    (worker,) = [child for child in children if b"lewm" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return int(worker)


@pytest.mark.slow
def test_two_nodes_started_by_torchrun_train_as_one_process_does(data, tmp_path, nodes):
    assert main(command(data, tmp_path / "one", "--trainer.max_steps=10")) == 0
    started = nodes(command(data, tmp_path / "two", "--data.num_workers=0", "--trainer.max_steps=10")[1:])
    said = [node.communicate(timeout=300)[0] for node in started]
    assert [node.returncode for node in started] == [0, 0], said
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert len(losses(tmp_path / "two")) == 10
    assert [text.count("run folder:") for text in said] == [1, 0]


@pytest.mark.slow
def test_two_nodes_end_where_the_worker_of_one_is_killed(data, tmp_path, nodes):
    started = nodes(command(data, tmp_path, "--data.num_workers=0", *ENDLESS)[1:])
    wait_for_a_checkpoint(tmp_path)
    os.kill(worker_of(started[1]), signal.SIGKILL)
    said = [node.communicate(timeout=KILL_S)[0] for node in started]
    assert [node.returncode for node in started] == [1, 1], said  # what torchrun says of any failure
    (line,) = [line for line in said[0].splitlines() if "lewm: error:" in line]
    assert "another rank was lost or has stopped answering" in line
    assert "--resume auto" in line


# The ranks below are forked from a server that has imported everything, with the environment that a launcher gives.


def on_rank(environment: dict[str, str], argv: list[str], log: str, plant: Callable[[], None] | None) -> None:
    os.environ |= environment
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = int(environment.get("RANK", environment.get("SLURM_PROCID", "0")))  # read when imported
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if plant is not None:
        plant()
    sys.exit(main(argv))


def of_torchrun(rank: int, world: int, port: int) -> dict[str, str]:
    found = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": 0, "GROUP_RANK": rank, "TORCHELASTIC_RUN_ID": "job"}
    return {k: str(v) for k, v in found.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def of_srun(rank: int, world: int, port: int) -> dict[str, str]:
    found = {"SLURM_PROCID": rank, "SLURM_NTASKS": world, "SLURM_LOCALID": 0, "SLURM_NODEID": rank}
    found |= {"SLURM_JOB_ID": 4711, "SLURM_JOB_NAME": "lewm", "SLURM_NTASKS_PER_NODE": 1, "SLURM_NNODES": world}
    return {k: str(v) for k, v in found.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


class Ranks:
    """Processes of one job, and what they said."""

    def __init__(self, folder: Path, launched: Callable[..., dict[str, str]], world: int) -> None:
        self.folder, self.launched, self.world, self.port = folder, launched, world, free_port()
        self.processes: list[Any] = []

    def start(self, *argv: list[str], plant: Callable[[], None] | None = None) -> None:
        """One rank for each command line; `plant` is called on each of them first."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lewm.fit"])
        for rank, words in enumerate(argv):
            args = (self.launched(rank, self.world, self.port), words, str(self.folder / f"{rank}.log"), plant)
            self.processes.append(context.Process(target=on_rank, args=args))
            self.processes[-1].start()

    def codes(self, ranks: list[int], seconds: float = 300) -> list[int | None]:
        """Exit codes; None for a process that hangs."""
        end = time.monotonic() + seconds
        for rank in ranks:
            self.processes[rank].join(max(0.1, end - time.monotonic()))
        return [self.processes[rank].exitcode for rank in ranks]

    def errors(self) -> list[str]:
        texts = [(self.folder / f"{rank}.log").read_text() for rank in range(self.world)]
        return [line for text in texts for line in text.splitlines() if line.startswith("lewm: error:")]


@pytest.fixture
def ranks(tmp_path) -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def make(launched: Callable[..., dict[str, str]], world: int) -> Ranks:
        made.append(Ranks(tmp_path, launched, world))
        return made[-1]

    yield make
    for process in (p for job in made for p in job.processes):
        process.kill()
        process.join()


def wait_for_a_checkpoint(root: Path) -> Path:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if found := list(root.glob("lewm/*/checkpoints/step=*.ckpt")):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no checkpoint in five minutes")


@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_rank_is_killed_the_others_leave_with_one_line(data, tmp_path, ranks, lost):
    job = ranks(of_torchrun, 3)
    flags = command(
        data, tmp_path, "--data.global_batch=9", "--trainer.num_nodes=3", *ENDLESS, "--trainer.strategy=ddp"
    )
    job.start(*[flags] * 3)
    wait_for_a_checkpoint(tmp_path)
    job.processes[lost].kill()
    assert job.codes([rank for rank in range(3) if rank != lost], seconds=KILL_S) == [2, 2]
    errors = job.errors()
    assert errors, "nobody said anything"
    assert all("another rank was lost or has stopped answering" in line and "--resume auto" in line for line in errors)


def test_when_a_rank_stops_answering_the_others_leave_within_the_timeout(data, tmp_path, ranks):
    job = ranks(of_torchrun, 2)
    job.start(
        *[command(data, tmp_path, "--trainer.num_nodes=2", *ENDLESS, "--timeout_s=4", "--trainer.strategy=ddp")] * 2
    )
    wait_for_a_checkpoint(tmp_path)
    os.kill(job.processes[1].pid, signal.SIGSTOP)
    assert job.codes([0], seconds=4 + SLACK_S) == [2]
    assert len(job.errors()) == 1
    assert "--resume auto" in job.errors()[0]


def test_what_one_rank_cannot_do_ends_all_and_is_said_by_it(data, tmp_path, ranks):
    job = ranks(of_torchrun, 2)
    flags = command(data, tmp_path / "runs", "--trainer.num_nodes=2", "--trainer.strategy=ddp", "--trainer.max_steps=2")
    job.start(flags, [*flags, f"--data.path={tmp_path / 'not_there.h5'}"])
    assert job.codes([0, 1]) == [2, 2]
    assert any("not_there.h5" in line for line in job.errors())
    assert not list((tmp_path / "runs").glob("lewm/*"))


def test_accumulation_is_refused_on_all_ranks_before_training(data, tmp_path, ranks):
    job = ranks(of_torchrun, 2)
    flags = command(data, tmp_path, "--trainer.num_nodes=2", "--trainer.strategy=ddp", "--trainer.max_steps=2")
    job.start(*[[*flags, "--trainer.accumulate_grad_batches=2"]] * 2)
    assert job.codes([0, 1]) == [2, 2]
    (line,) = set(job.errors())  # said once, but twice where rank 0, which keeps who spoke, left in between
    assert "SIGReg is a statistic of the whole global batch" in line
    assert not list(tmp_path.rglob("*.ckpt"))


def test_ranks_of_srun_train_as_one_in_one_folder_and_go_on_in_it_after_a_requeue(data, tmp_path, ranks):
    schedule = "--model.schedule_epochs=3"  # whatever the run's length
    flags = command(data, tmp_path, "--trainer.num_nodes=2", "--trainer.strategy=ddp", schedule)
    for steps in (2, 4):
        job = ranks(of_srun, 2)
        job.start(*[[*flags, f"--trainer.max_steps={steps}", "--resume=auto"]] * 2)
        assert job.codes([0, 1]) == [0, 0], [p.read_text() for p in tmp_path.glob("*.log")]
    (run,) = (tmp_path / "lewm").iterdir()
    assert checkpoint.resolve(run).name == "step=4.ckpt"
    assert main(command(data, tmp_path / "one", "--trainer.max_steps=4", schedule)) == 0
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert len(losses(tmp_path)) == 4


@pytest.mark.parametrize(("launched", "name"), [(of_torchrun, "torchrun"), (of_srun, "srun")])
def test_another_number_of_ranks_than_the_config_says_is_refused_at_once(
    data, tmp_path, monkeypatch, capsys, launched, name
):
    for variable, value in launched(0, 4, 1).items():
        monkeypatch.setenv(variable, value)
    assert main(command(data, tmp_path, "--trainer.num_nodes=2", "--trainer.devices=1")) == 2
    assert f"{name} started 4 ranks, but trainer.num_nodes x trainer.devices is 2 x 1" in capsys.readouterr().err


def test_several_nodes_without_a_launcher_are_refused(data, tmp_path, capsys):
    assert main(command(data, tmp_path, "--trainer.num_nodes=2")) == 2
    assert "by torchrun or srun" in capsys.readouterr().err

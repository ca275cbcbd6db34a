"""The scripts of docs/slurm with programs of our own in place of srun, scontrol and torchrun: what starts, what is
queued again, and with which code they end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "docs" / "slurm"
LATE = {"RETRY_AFTER_S": "-1"}  # as if the job had run for longer than that


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder of programs that write their words, one a line, to NAME.said, and end with the code in NAME_CODE."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("srun", "scontrol", "scancel", "torchrun"):
        path = folder / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> "{tmp_path}/{name}.said"\nexit "${{{name}_CODE:-0}}"\n')
        path.chmod(0o755)
    return folder


def ran(programs: Path, script: str, *words: str, **variables: str) -> int:
    """Exit code of a script that finds those programs first."""
    path = {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["bash", str(SCRIPTS / script), *words]
    return subprocess.run(command, env=os.environ | path | variables).returncode


def said(programs: Path, name: str) -> list[str]:
    """Words that a program was given; none if nobody called it."""
    path = programs.parent / f"{name}.said"
    return path.read_text().splitlines() if path.exists() else []


def batch(programs: Path, code: int, *words: str, **variables: str) -> bool:
    """Whether train.sbatch, of which srun ends with `code`, queues its job again."""
    job = {"SLURM_JOB_ID": "4711", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8", "srun_CODE": str(code)}
    assert ran(programs, "train.sbatch", *words, **(job | variables)) == code
    assert said(programs, "scancel") == []
    assert said(programs, "scontrol") in ([], ["requeue", "4711"])
    return said(programs, "scontrol") != []


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_bash_can_read_the_script(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_batch_job_trains_with_the_words_it_was_given_on_all_nodes_and_goes_on_where_it_stopped(programs):
    assert not batch(programs, 0, "--config", "pusht_224", "--data.path", "/a place/with a blank")
    assert said(programs, "srun") == [
        *("--kill-on-bad-exit=0", "lewm", "fit", "--config", "pusht_224", "--data.path", "/a place/with a blank"),
        *("--config", "ddp_multinode", "--trainer.num_nodes", "2", "--trainer.devices", "8", "--resume", "auto"),
    ]


@pytest.mark.parametrize(
    ("code", "early", "late"), [(0, False, False), (2, False, True), (3, False, False), (137, False, True)]
)
def test_a_job_is_queued_again_after_what_may_pass_only_if_it_had_run_for_a_while(programs, code, early, late):
    assert batch(programs, code) is early
    assert batch(programs, code, **LATE) is late


@pytest.mark.parametrize("variables", [{}, LATE], ids=["early", "late"])
def test_a_job_that_saved_and_left_on_a_signal_is_queued_again(programs, variables):
    assert batch(programs, 143, **variables)


@pytest.mark.parametrize(("restarts", "again"), [("99", True), ("100", False), ("101", False)])
def test_a_job_is_queued_again_no_more_than_a_hundred_times(programs, restarts, again):
    assert batch(programs, 143, SLURM_RESTART_COUNT=restarts) is again


def test_slurm_asks_for_what_the_script_needs_before_its_first_command():
    lines = (SCRIPTS / "train.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")]
    assert {"--requeue", "--signal=USR1@300", "--open-mode=append"} <= set(asked)
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]  # sbatch would not read it


@pytest.mark.parametrize(("variables", "port"), [({}, "29500"), ({"PORT": "4321"}, "4321")])
def test_torchrun_is_started_on_each_node_and_its_code_is_the_scripts(programs, variables, port):
    node = {"HEAD": "node0", "NODES": "3", "NODE_RANK": "2", "GPUS": "4", "torchrun_CODE": "1"}
    assert ran(programs, "torchrun.sh", "--config", "pusht_224", **(node | variables)) == 1
    assert said(programs, "torchrun") == [
        *("--nnodes=3", "--node_rank=2", "--nproc_per_node=4", "--master_addr=node0", f"--master_port={port}"),
        *("-m", "lewm", "fit", "--config", "pusht_224", "--config", "ddp_multinode"),
        *("--trainer.num_nodes", "3", "--trainer.devices", "4", "--resume", "auto"),
    ]

"""Who started this process and with how many others: torchrun, srun, or nobody, and then Lightning starts them."""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from lewm.errors import UserError
from lewm.job import Job

SESSIONS = itertools.count()


def job_of_launcher(timeout_s: float) -> Job:
    """The job of ranks that torchrun or srun started this process for, found as Lightning finds it."""
    for launcher, kind in (("torchrun", TorchElasticEnvironment), ("srun", SLURMEnvironment)):
        if kind.detect():
            found = kind()
            os.environ |= {"MASTER_ADDR": found.main_address, "MASTER_PORT": str(found.main_port)}
            return Job(found.global_rank(), found.world_size(), timeout_s, launcher, next(SESSIONS))
    return Job()


def call_off_observer() -> None:
    """Let this process end with a code of its own, where all ranks that Lightning started for it end together.

    Lightning watches those from a thread, and kills its own process as soon as one has left with another code than 0.
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []


def check_ranks(job: Job, trainer: Any) -> None:
    """Refuse another number of processes than were started, or than there are cores to start them on."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    here, nodes, cores = _devices_here(trainer.devices, on_cpu), trainer.num_nodes, os.cpu_count() or 1
    if job.launcher and here * nodes != job.world:
        raise UserError(
            f"{job.launcher} started {job.world} ranks, but trainer.num_nodes x trainer.devices is {nodes} x {here}; "
            "let them agree"
        )
    if not job.launcher and nodes > 1:
        raise UserError(f"trainer.num_nodes is {nodes}: start `lewm fit` on every node by torchrun or srun")
    if not job.launcher and on_cpu and here > cores:
        raise UserError(f"trainer.devices is {here} but this machine has {cores} CPU cores; ask for at most {cores}")


def _devices_here(wanted: Any, on_cpu: bool) -> int:
    """How many devices of this node `trainer.devices` means: a number, a list, or `auto` for all."""
    if isinstance(wanted, str) and not wanted.isdigit():
        every = wanted in ("auto", "-1")
        return (1 if on_cpu else torch.cuda.device_count()) if every else len([x for x in wanted.split(",") if x])
    if isinstance(wanted, list):
        return len(wanted)
    return torch.cuda.device_count() if int(wanted) == -1 and not on_cpu else int(wanted)

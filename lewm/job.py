"""Ranks that torchrun or srun started: what rank 0 decides, all others do; what one of them cannot do, none does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lewm.errors import UserError

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # where launchers say a process's rank, the most exact first


class Job:
    """The processes that one launcher started for one run; alone by default.

    They meet at MASTER_ADDR:MASTER_PORT, where torch forms its process group afterwards, so nothing on disk can be
    stale. All of them have to call `decide` in the same order.

    Args:
        rank: number of this process among all of them.
        world: how many they are.
        timeout_s: seconds after which nobody waits for the others any longer.
        launcher: who started them; empty where this process starts its own.
        session: which of this process's trainings is meant, where it makes several.
    """

    def __init__(
        self, rank: int = 0, world: int = 1, timeout_s: float = 600.0, launcher: str = "", session: int = 0
    ) -> None:
        self.rank, self.world, self.timeout_s, self.launcher, self.session = rank, world, timeout_s, launcher, session
        self.asked = 0
        self._store: Any = None

    def decide(self, choice: Callable[[], Any]) -> Any:
        """What `choice()` says on rank 0 (plain JSON), once all ranks are here; its refusal is everyone's."""
        if self.world == 1:
            return choice()
        self.asked += 1
        if self.rank > 0:
            self._put(f"rank{self.rank}", "")
            said = json.loads(self._get(["decision"])[0])
        else:
            said = self._decided(choice)
            self._put("decision", json.dumps(said))
        if "refused" in said:
            raise UserError(said["refused"])
        return said["chosen"]

    def leave(self, why: BaseException) -> None:
        """Tell ranks that wait for this one's next decision not to."""
        if self._store is None:
            return
        self.asked += 1
        name, message = f"rank{self.rank}", str(why)
        if self.rank == 0:
            name, message = "decision", json.dumps({"refused": message})
        try:
            self._put(name, message or type(why).__name__)
        except UserError:
            return  # who cannot be told finds out by the timeout

    def _decided(self, choice: Callable[[], Any]) -> dict[str, Any]:
        refused = [message for message in self._get([f"rank{r}" for r in range(1, self.world)]) if message]
        if refused:
            return {"refused": refused[0]}
        try:
            return {"chosen": choice()}
        except Exception as error:
            self._put("decision", json.dumps({"refused": str(error)}))
            raise

    def _put(self, name: str, value: str) -> None:
        with _Unreachable(self):
            self._meeting().set(f"{self.asked}/{name}", value)

    def _get(self, names: list[str]) -> list[str]:
        """Values of names, waited for."""
        keys = [f"{self.asked}/{name}" for name in names]
        with _Unreachable(self):
            self._meeting().wait(keys)
            return [value.decode() for value in self._meeting().multi_get(keys)]

    def _meeting(self) -> Any:
        import torch.distributed as dist

        if self._store is None:
            timeout = timedelta(seconds=self.timeout_s)
            # Kept as long as the job: rank 0's holds the server, which the process group will share.
            store, _, _ = next(dist.rendezvous("env://", self.rank, self.world, timeout=timeout))
            store.set_timeout(timeout)
            self._store = dist.PrefixStore(f"lewm/{self.session}", store)
        return self._store


def speaks(store: Any = None) -> bool:
    """Whether this process is the one to print an error for all ranks; `store` is another than the group's own.

    Once they form a process group it is the first that meets one: the others only learn that it is gone. Before that,
    where all of them are refused alike, it is rank 0.
    """
    dist: Any = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"
    try:
        return (store or dist.distributed_c10d._get_default_store()).add("lewm/errors", 1) == 1
    except dist.DistError:  # the store went away with the process that held it
        return True


class _Unreachable:
    """Turns torch's errors about absent processes into one line."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import torch.distributed as dist

        if isinstance(error, dist.DistError):
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UserError(
                f"rank {self.job.rank} waited {self.job.timeout_s:g} s at {where} for the {self.job.world} ranks of "
                "its job; see what the others said, or raise --timeout_s"
            ) from error

"""`lewm` that notes where it stands, so that a kill can be aimed: python benchmarks/watched.py JSON COMMAND ...

The JSON holds the arguments of `watch`. Nothing that is computed changes: hooks only note, and sleep.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import torch

from lewm.cli import main
from lewm.datasets.datamodule import ClipDataModule
from lewm.fit import AtomicCheckpointIO
from lewm.module import LeWM

FAULTS = {  # planted to see that a comparison finds them
    "seed": (LeWM, "on_train_batch_start", lambda self, batch, batch_idx: torch.manual_seed(self.seed)),
    "position": (ClipDataModule, "clips_consumed", lambda self: 0),
}


def watch(notes: str, *, slow: float = 0.0, cores: int = 0, fault: str | None = None) -> None:
    """Let this process append to the file `notes`, with its rank behind it, one line for each moment it comes to.

    `step N CLIPS`, `validation N`, `save FILE`, `saved FILE`, `remove FILE`, `epoch N`.

    Args:
        notes: path of the file.
        slow: seconds by which each moment, and each sync to disk, is drawn out.
        cores: pretend that the machine has so many; 0 for its own number.
        fault: one of `FAULTS`, to plant.
    """
    rank = os.environ.get("LOCAL_RANK", "0")
    file = os.open(f"{notes}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(*words: Any) -> None:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
        time.sleep(0 if words[0] == "save" else slow)  # the sync is what draws a save out

    if fault is not None:
        owner, name, wrong = FAULTS[fault]
        setattr(owner, name, wrong)
    if cores:
        os.cpu_count = lambda: cores
    _around(LeWM, "on_train_batch_start", lambda self, batch, i: note("step", self.global_step, *batch.index.tolist()))
    _around(LeWM, "validation_step", lambda self, batch, i: note("validation", self.global_step))
    _around(LeWM, "on_train_epoch_end", lambda self: note("epoch", self.current_epoch))
    _around(
        AtomicCheckpointIO,
        "save_checkpoint",
        lambda self, content, path, **_: note("save", Path(path).name),
        lambda self, content, path, **_: note("saved", Path(path).name),
    )
    _around(AtomicCheckpointIO, "remove_checkpoint", lambda self, path: note("remove", Path(path).name))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(slow)
        real(descriptor)

    os.fsync = fsync


def _around(owner: type, name: str, before: Callable[..., None], after: Callable[..., None] | None = None) -> None:
    """Let a method call others before and after itself, with its own arguments."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def method(self: Any, *args: Any, **named: Any) -> Any:
        before(self, *args, **named)
        found = real(self, *args, **named)
        if after is not None:
            after(self, *args, **named)
        return found

    setattr(owner, name, method)


if __name__ == "__main__":
    torch.set_num_threads(1)
    watch(**json.loads(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))

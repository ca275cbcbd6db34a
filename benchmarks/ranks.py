"""Do several processes train as one does? Clips, losses, SIGReg and gradients, on any number of ranks.

python benchmarks/ranks.py --worlds 1,2,4                     (gloo on the CPU)
python benchmarks/ranks.py --worlds 1,2,4,8 --backend nccl    (one GPU a rank)

Each world runs `lewm fit`'s own session: its data, order, DDP and optimiser. World 1 keeps its weights before each of
the first steps; the others take these weights, so that losses and gradients are compared from the same ones, and then
run freely. In float64 they run freely from the start. Words after `--` go to `lewm fit`; the default is a small
Two-Room model on data made here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lewm  # noqa: F401, isort: skip (before lightning: its guard of torchvision)
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lewm.fit import Session

RELATIVE, ABSOLUTE = 1e-5, 1e-7  # of a parameter's own gradient and of all gradients together
FLAGS = ["--config=demo", "--model.sigreg_directions=128"]
ALWAYS = [
    "--model.dropout=0",
    "--data.num_workers=0",
    "--trainer.max_epochs=-1",
    "--trainer.check_val_every_n_epoch=null",
    "--trainer.val_check_interval=null",
    "--trainer.limit_val_batches=0",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
]


@dataclass(frozen=True)
class Plan:
    """What every world does."""

    data: str
    flags: list[str]
    backend: str
    steps: int
    free_steps: int


@dataclass(frozen=True)
class Row:
    """How far a world is from one process; differences are relative where nothing else is said."""

    world: int
    same_clips: bool
    loss: float  # largest difference of a step's loss, same weights, float32
    sigreg: float
    gradient: float  # largest |g - g1| / (1e-5 |g1| + 1e-7 |g_all|) of any parameter and step: 1 is the bar
    gradient_of: str
    float64: float  # largest difference of a step's loss where all ran freely
    float64_weights: float  # |w - w1| / |w1| of all weights and buffers after that
    float32_loss: float  # largest difference of a step's loss where all ran freely in float32, absolute


class Recorder(Callback):
    """Keeps every step's clips and losses, of the first steps weights and gradients, and the final weights.

    Args:
        kept: number of steps of which weights and gradients are kept.
        imposed: weights to take before each step; None to run freely.
    """

    def __init__(self, kept: int, imposed: list[dict[str, Tensor]] | None = None) -> None:
        self.kept, self.imposed = kept, imposed
        names = ("clips", "loss", "sigreg", "grads", "weights", "final")
        self.content: dict[str, list[Any]] = {name: [] for name in names}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        inner = pl_module.losses

        def losses(*args: Any) -> tuple[Tensor, Tensor]:
            pred, sigreg = inner(*args)
            total = (pred + pl_module.sigreg_weight * sigreg).detach().double()
            if dist.is_initialized():
                dist.all_reduce(total)
            self.content["loss"].append(float(total) / trainer.world_size)
            self.content["sigreg"].append(float(sigreg.detach()))
            return pred, sigreg

        pl_module.losses = losses

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if self.imposed is not None and step < self.kept:
            pl_module.model.load_state_dict(self.imposed[step])
        if step < self.kept and self.imposed is None:
            self.content["weights"].append({k: v.cpu().clone() for k, v in pl_module.model.state_dict().items()})
        self.content["clips"].append(batch.index.cpu())

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if len(self.content["grads"]) < self.kept:
            named = pl_module.model.named_parameters()
            self.content["grads"].append({name: p.grad.double().cpu() for name, p in named})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        state = pl_module.model.state_dict()
        self.content["final"] = [{k: v.double().cpu() for k, v in state.items() if v.is_floating_point()}]


def on_rank(rank: int, world: int, port: int, plan: Plan, folder: str) -> None:
    """All trials of one rank, as if torchrun had started it."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "ranks"}
    first = Path(folder) / "one.pt"
    recorder = Recorder(plan.steps, torch.load(first, weights_only=True) if world > 1 else None)
    trials = {"float32": trial(world, plan, "32-true", plan.steps + plan.free_steps, recorder)}
    trials["float64"] = trial(world, plan, "64-true", plan.free_steps, Recorder(0))
    if world == 1:
        torch.save(recorder.content["weights"], first)
    torch.save({name: t | {"weights": []} for name, t in trials.items()}, Path(folder) / f"{world}-{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


def trial(world: int, plan: Plan, precision: str, steps: int, recorder: Recorder) -> dict[str, list[Any]]:
    """What a recorder kept of one run of `lewm fit`."""
    with tempfile.TemporaryDirectory() as scratch:
        own = [f"--data.path={plan.data}", f"--trainer.default_root_dir={scratch}"]
        own += [f"--trainer.precision={precision}", f"--trainer.max_steps={steps}", f"--trainer.devices={world}"]
        own += [f"--trainer.accelerator={'gpu' if plan.backend == 'nccl' else 'cpu'}"]
        own += ["--trainer.strategy=ddp"] if world > 1 else []
        session = Session("fit", [*plan.flags, *ALWAYS, *own])
        trainer: Any = session.trainer
        trainer.callbacks = [recorder]
        trainer.fit(session.model, datamodule=session.datamodule)
    return recorder.content


def run_world(world: int, plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Every rank's trials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = (world, port, plan, str(folder))
    method = "spawn" if plan.backend == "nccl" else "forkserver"  # a fork loads nothing again
    mp.start_processes(on_rank, args=args, nprocs=world, start_method=method)
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


def compare(world: int, ranks: list[dict[str, Any]], one: dict[str, Any]) -> Row:
    """A world's distance from one process."""
    worst, name = _furthest(
        gradient_excess(g, g1)
        for rank in ranks
        for g, g1 in zip(rank["float32"]["grads"], one["float32"]["grads"], strict=True)
    )
    plain, plain1, wide, wide1 = ranks[0]["float32"], one["float32"], ranks[0]["float64"], one["float64"]
    steps = len(plain1["grads"])
    return Row(
        world=world,
        same_clips=all(clips_of(ranks, name) == clips_of([one], name) for name in one),
        loss=_largest(plain["loss"][:steps], plain1["loss"][:steps]),
        sigreg=_largest(plain["sigreg"][:steps], plain1["sigreg"][:steps]),
        gradient=worst,
        gradient_of=name,
        float64=_largest(wide["loss"], wide1["loss"]),
        float64_weights=_furthest((weight_distance(r["float64"]["final"][0], wide1["final"][0]), "") for r in ranks)[0],
        float32_loss=_furthest((abs(a - b), "") for a, b in zip(plain["loss"], plain1["loss"], strict=True))[0],
    )


def clips_of(ranks: list[dict[str, Any]], trial: str) -> list[list[int]]:
    """Clips of all ranks together, step by step."""
    return [sorted(torch.cat(parts).tolist()) for parts in zip(*(r[trial]["clips"] for r in ranks), strict=True)]


def gradient_excess(g: dict[str, Tensor], g1: dict[str, Tensor]) -> tuple[float, str]:
    """The parameter furthest from its bar, in units of the bar."""
    everything = float(torch.stack([x.norm() for x in g1.values()]).norm())
    return _furthest(
        (float((g[name] - x).norm()) / (RELATIVE * float(x.norm()) + ABSOLUTE * everything), name)
        for name, x in g1.items()
    )


def weight_distance(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Norm of the difference of all weights and buffers together, relative to the wanted ones'."""
    assert weights.keys() == wanted.keys()
    flat, flat1 = (torch.cat([w[name].flatten() for name in wanted]) for w in (weights, wanted))
    return float((flat - flat1).norm() / flat1.norm())


def _largest(values: list[float], wanted: list[float]) -> float:
    return _furthest((abs(a - b) / abs(b), "") for a, b in zip(values, wanted, strict=True))[0]


def _furthest(found: Iterable[tuple[float, str]]) -> tuple[float, str]:
    """The largest; a NaN, with which nothing compares, ends the program instead of hiding among the others."""
    distances = list(found)
    if wrong := [name for distance, name in distances if not math.isfinite(distance)]:
        raise SystemExit(f"a distance is not finite: {wrong[0] or 'of losses or weights'}")
    return max(distances)


def made_data(folder: Path) -> str:
    """A small Two-Room."""
    from lewm.cli import main as program

    path = str(folder / "two_room")
    made = program(["collect", "two_room", "--out", path, "--episodes", "40", "--image-size", "32", "--workers", "0"])
    assert made == 0
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="1,2,4", help="numbers of processes, by commas; 1 is always run")
    parser.add_argument("--backend", choices=("auto", "gloo", "nccl"), default="auto")
    parser.add_argument("--steps", type=int, default=10, help="steps from the same weights")
    parser.add_argument("--free_steps", type=int, default=50, help="steps that run freely")
    parser.add_argument("--data", help="a data set; made here if left out")
    parser.add_argument("--json", help="file for the table")
    parser.add_argument("flags", nargs="*", help="of `lewm fit`, after --")
    args = parser.parse_args()
    backend = args.backend if args.backend != "auto" else "nccl" if torch.cuda.device_count() > 1 else "gloo"
    worlds = sorted({int(world) for world in args.worlds.split(",")} - {1})
    if backend == "nccl" and max(worlds, default=1) > torch.cuda.device_count():
        sys.exit(f"{max(worlds)} ranks need as many GPUs; there are {torch.cuda.device_count()}")
    mp.get_context("forkserver").set_forkserver_preload(["lewm.fit"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plan = Plan(args.data or made_data(folder), args.flags or FLAGS, backend, args.steps, args.free_steps)
        one = run_world(1, plan, folder)[0]
        rows = [compare(world, run_world(world, plan, folder), one) for world in worlds]
    print_table(rows, plan)
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def print_table(rows: list[Row], plan: Plan) -> None:
    """One line a world."""
    print(f"{plan.backend}: {plan.steps} steps from the same weights, {plan.free_steps} free ones; against one process")
    print("ranks  same clips     loss   SIGReg  gradient/bar  float64 free  weights  float32 free  (worst gradient)")
    for r in rows:
        print(
            f"{r.world:5d}  {r.same_clips!s:>10}  {r.loss:7.1e}  {r.sigreg:7.1e}  {r.gradient:12.2g}  {r.float64:12.1e}"
            f"  {r.float64_weights:7.1e}  {r.float32_loss:12.1e}  {r.gradient_of}"
        )


if __name__ == "__main__":
    main()

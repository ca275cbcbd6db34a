"""Runs a planner over pairs of start and goal, several worlds side by side, and keeps what happened.

The planner sees frames and its own actions. States go to a judge alone, after every environment step, whatever the
world says of its own end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lewm.errors import UserError
from lewm.plan.mpc import MPC, PlanRecord
from lewm.plan.shooting import RandomPolicy
from lewm.progress import track

State = Float[np.ndarray, " x"]
Frame = UInt8[np.ndarray, "h w c"]


class World(Protocol):
    """What is stepped: it can be put into a recorded state, and never ends or resets by itself."""

    def restore(self, state: State) -> Frame:
        """Start there, at rest; the frame."""
        ...

    def advance(self, action: Float[np.ndarray, " a"]) -> State:
        """One environment step; the true state after it."""
        ...

    def frame(self) -> Frame:
        """What it looks like now; asked for only where it is seen, as drawing may take longer than moving."""
        ...

    def close(self) -> None:
        """It is not needed any more."""
        ...


class Judge(Protocol):
    """Sees every state of one rollout in order, and says when it is solved; from then on it always is."""

    def see(self, state: State) -> bool:
        """Show the next state; whether the rollout is solved by now."""
        ...


@dataclass(frozen=True)
class Task:
    """One pair: its key, by which noise is drawn, where it starts, the frame to arrive at, and who judges it.

    `goals` (g, h, w, c) may hold frames on the way to the goal, in order; the goal itself is the last.
    """

    key: str
    start: State
    goals: UInt8[np.ndarray, "g h w c"]
    judge: Callable[[], Judge]


@dataclass
class Rollout:
    """What happened to one task under one seed.

    Args:
        key: of the task.
        seed: of the planner.
        states: true states, of the start and after every executed step.
        solved_at: environment steps after which the judge was content, 0 for the start itself; None for never.
        latent: |z - z_goal|^2 after every executed block; of several goal frames to the last.
        predicted_latent: what the model had expected of it.
        drift: mean((predicted - realised)^2) over dimensions after every executed block, in the order of execution.
        ahead: how many blocks before it was planned, from 1, of every executed block.
        frames: frames (steps + 1, h, w, c) at the start and after every step, where they were asked for.
        imagined: predicted embeddings (blocks, d) of the same blocks, where they were asked for.
    """

    key: str
    seed: int
    states: list[State]
    solved_at: int | None = None
    latent: list[float] = field(default_factory=list)
    predicted_latent: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    imagined: list[Float[np.ndarray, " d"]] = field(default_factory=list)


@dataclass
class Evaluation:
    """All rollouts, seed by seed in the order of the tasks, and all plans."""

    rollouts: list[Rollout] = field(default_factory=list)
    records: list[PlanRecord] = field(default_factory=list)

    def solved(self, num: int) -> np.ndarray:
        """(seeds, num): who arrived."""
        return np.array([rollout.solved_at is not None for rollout in self.rollouts]).reshape(-1, num)

    def plan_ms(self) -> dict[str, Any]:
        """Milliseconds per plan of one episode: a search's wall time over the episodes that it was for, each counted.

        `together` is the median number of episodes in one search; fewer share the machine less well.
        """
        num = np.array([len(record.episodes) for record in self.records], dtype=int)
        each = np.repeat([record.milliseconds / len(record.episodes) for record in self.records], num)
        together = float(np.median(num)) if len(num) else None
        return quantiles(each) | {"plans": len(each), "together": together}

    def search_ms(self) -> dict[str, Any]:
        """Milliseconds of a whole search, for all of its episodes."""
        return quantiles([record.milliseconds for record in self.records])

    def encode_ms(self) -> dict[str, Any]:
        """Milliseconds of encoding what was seen since the last search, for all of its episodes; not in the others."""
        return quantiles([record.encode_milliseconds for record in self.records])

    def costs(self) -> dict[str, Float[np.ndarray, "i p"]]:
        """`best` and `mean` cost of each iteration of every plan."""
        if not self.records:
            return {"best": np.zeros((0, 0)), "mean": np.zeros((0, 0))}
        return {name: torch.cat([getattr(r, name) for r in self.records], dim=1).numpy() for name in ("best", "mean")}


def evaluate(
    make_mpc: Callable[[int], MPC],
    tasks: Sequence[Task],
    make_world: Callable[[], World],
    *,
    seeds: Sequence[int],
    batch: int = 64,
    shown: int = 0,
    what: str = "plans",
) -> Evaluation:
    """Every task under every seed; `make_mpc` makes a controller for a seed.

    Tasks of a batch are planned for together; an outcome depends on the task and the seed alone. A solved task is
    stepped to the end of the blocks that are being executed, then no longer planned for. Frames and predictions of
    the first `shown` tasks are kept, under the first seed. UserError for no task, or a batch below 1.
    """
    if batch < 1 or not tasks:
        raise UserError(f"there is nothing to plan for: {len(tasks)} pairs, in batches of {batch}")
    found = Evaluation()
    parts = [(seed, tasks[low : low + batch]) for seed in seeds for low in range(0, len(tasks), batch)]
    probe = make_mpc(seeds[0])
    plans = -(-probe.budget // (probe.execute * probe.model.interface.frameskip))
    films = {task.key for task in tasks[:shown]}

    def steps() -> Iterator[None]:
        for seed, part in parts:
            mpc = make_mpc(seed)
            with ExitStack() as stack:
                running = Running(part, seed, closed_by(stack, make_world), films if seed == seeds[0] else set())
                yield from running.run(mpc)
            found.rollouts += running.rollouts
            found.records += mpc.records

    for _ in track(steps(), what, total=len(parts) * plans):
        pass
    return found


def closed_by(stack: ExitStack, make_world: Callable[[], World]) -> Callable[[], World]:
    """Makes worlds that the stack closes, each from when it is made."""

    def make() -> World:
        world = make_world()
        stack.callback(world.close)
        return world

    return make


class Running:
    """The worlds, judges and rollouts of one batch."""

    def __init__(self, tasks: Sequence[Task], seed: int, make_world: Callable[[], World], films: set[str]) -> None:
        self.tasks, self.films = tasks, films
        self.worlds, self.judges = [make_world() for _ in tasks], [task.judge() for task in tasks]
        self.rollouts = [Rollout(task.key, seed, [np.array(task.start)]) for task in tasks]
        self.frames = [world.restore(task.start) for world, task in zip(self.worlds, tasks, strict=True)]
        for i, rollout in enumerate(self.rollouts):
            self._judge(i)
            if rollout.key in films:
                rollout.frames.append(self.frames[i])

    def run(self, mpc: MPC) -> Iterator[None]:
        """Plan and execute until the budget is spent or all have arrived; yields after every plan."""
        active = [i for i, rollout in enumerate(self.rollouts) if rollout.solved_at is None]
        if not active:
            return
        frames, goals = (np.stack([x[i] for i in active]) for x in (self.frames, [task.goals for task in self.tasks]))
        mpc.start(torch.from_numpy(frames), torch.from_numpy(goals), [self.rollouts[i].key for i in active])
        while active and not mpc.done:
            blocks = mpc.plan().numpy()
            after = [self._execute(i, blocks[row]) for row, i in enumerate(active)]
            mpc.observe(torch.from_numpy(np.stack(after)))
            self._note(mpc.records[-1], mpc.goal.cpu(), active)
            going = [self.rollouts[i].solved_at is None for i in active]
            active = [i for i, goes in zip(active, going, strict=True) if goes]
            if active and not all(going):
                mpc.keep(torch.tensor(going))
            yield

    def _execute(self, i: int, blocks: Float[np.ndarray, "e k a"]) -> UInt8[np.ndarray, "e h w c"]:
        rollout, frames = self.rollouts[i], []
        for block in blocks:
            for action in block:
                rollout.states.append(np.array(self.worlds[i].advance(action)))
                self._judge(i)
                if rollout.key in self.films:
                    rollout.frames.append(self.worlds[i].frame())
            frames.append(self.worlds[i].frame())
        return np.stack(frames)

    def _judge(self, i: int) -> None:
        rollout = self.rollouts[i]
        if self.judges[i].see(rollout.states[-1]) and rollout.solved_at is None:
            rollout.solved_at = len(rollout.states) - 1

    def _note(self, record: PlanRecord, goal: Float[Tensor, "b g d"], active: list[int]) -> None:
        assert record.realised is not None
        e = record.realised.shape[1]
        drift, realised = record.drift(), to_goal(record.realised, goal)
        predicted = to_goal(record.predicted[:, :e], goal)
        for row, i in enumerate(active):
            rollout = self.rollouts[i]
            rollout.latent += realised[row].tolist()
            rollout.predicted_latent += predicted[row].tolist()
            rollout.drift += drift[row].tolist()
            rollout.ahead += range(1, e + 1)
            if rollout.key in self.films:
                rollout.imagined += list(record.predicted[row, :e].numpy())


def quantiles(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """Median and 95th percentile; None of nothing."""
    found = np.quantile(values, [0.5, 0.95]).tolist() if len(values) else (None, None)
    return dict(zip(("median", "p95"), found, strict=True))


def to_goal(z: Float[Tensor, "b n d"], goal: Float[Tensor, "b g d"]) -> Float[Tensor, "b n"]:
    """|z - z_goal|^2 of each embedding, where the goal is the last goal frame."""
    return (z.float() - goal[:, -1:].float()).square().sum(dim=-1)


def random_policy(mpc: MPC) -> MPC:
    """The same controller with actions uniform within the bounds, from noise keyed in the same way.

    It draws five blocks at a time whatever the planner's horizon is, so that one floor holds for all settings.
    """
    return MPC(
        mpc.model, RandomPolicy(), mpc.space, budget=mpc.budget, seed=mpc.seed, warm_start=False, device=mpc.device
    )

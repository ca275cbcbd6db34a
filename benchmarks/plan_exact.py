"""What do the planners solve when the model is exact? python benchmarks/plan_exact.py [--pairs 200] [--policy expert]

Two-Room's own equations stand behind the planners' protocol. Start and goal are 25 steps apart in episodes of a
behaviour policy, in different rooms; solved is who comes within 8 units of the goal in 50 steps through the door, one
pair an episode. Prints one line a setting: rate with Wilson's interval, n, milliseconds a plan and pair.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from exact_two_room import ExactTwoRoom, Pairs, Worlds, draw_pairs

from lewm.plan import make_solver
from lewm.plan.cost import COSTS
from lewm.plan.mpc import MPC
from lewm.plan.space import ActionSpace
from lewm.probes.statistics import wilson_interval

SIDE = 64


class Setting(NamedTuple):
    """One line of the table."""

    solver: str
    settings: dict[str, Any] = {}
    walls: bool = True
    cost: str = "last"
    execute: int = 5


SETTINGS = [
    Setting("cem"),
    Setting("icem"),
    Setting("mppi"),
    Setting("gradient", walls=False),
    Setting("gradient"),
    Setting("cem", {"exponent": 2.0}),
    Setting("mppi", {"exponent": 2.0}),
    Setting("shooting"),
    Setting("random"),
]


class Run(NamedTuple):
    """What came of a setting. Who has arrived is not planned for again."""

    arrived: np.ndarray
    least: np.ndarray
    milliseconds: np.ndarray  # of each plan, over the number of pairs that were planned for
    drift: float  # largest distance between where the model and the world came out


def run(setting: Setting, pairs: Pairs, *, seed: int = 0, side: int = SIDE) -> Run:
    """One planner on all pairs at once."""
    model = ExactTwoRoom(image_size=side, walls=setting.walls, mean=pairs.mean, std=pairs.std)
    worlds = Worlds(pairs, image_size=side, walls=setting.walls)
    space = ActionSpace.of(model.interface, (-1.0, -1.0), (1.0, 1.0))
    solver = make_solver(setting.solver, **setting.settings)
    mpc = MPC(
        model, solver, space, cost=COSTS[setting.cost], execute=setting.execute, budget=50, seed=seed, chunk=16_384
    )
    mpc.start(worlds.frames, worlds.goals, range(len(pairs.start)))
    while not mpc.done and mpc.episodes:
        rows = np.array(mpc.episodes)
        mpc.observe(worlds.execute(mpc.plan(), rows))
        mpc.keep(torch.from_numpy(~worlds.arrived[rows]))
    per_pair = np.array([record.milliseconds / len(record.episodes) for record in mpc.records])
    drift = max(float((2 * record.drift()).sqrt().max()) for record in mpc.records)  # drift() is a mean over x and y
    return Run(worlds.arrived, worlds.least, per_pair, drift)


def line(setting: Setting, found: Run, seconds: float) -> str:
    """A row of the table."""
    n, hits = len(found.arrived), int(found.arrived.sum())
    low, high = wilson_interval(hits, n).bounds
    settings = " ".join(f"{name}={value}" for name, value in setting.settings.items())
    return (
        f"{setting.solver:9s} {'wall' if setting.walls else 'open':5s} {setting.cost:8s} {setting.execute:7d} "
        f"{100 * hits / n:6.1f} [{100 * low:5.1f}, {100 * high:5.1f}] {n:5d} {np.median(found.milliseconds):8.2f} "
        f"{found.drift:7.3f} {seconds:6.1f}  {settings}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--policy", default="expert", help="whose episodes the pairs are from")
    parser.add_argument("--seed", type=int, default=1, help="of the episodes")
    parser.add_argument("--planner-seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = draw_pairs(arguments.pairs, arguments.policy, seed=arguments.seed)
    print(f"{arguments.pairs} pairs of {arguments.policy} episodes, {pairs.skipped} episodes without one")
    print("solver    room  cost     execute   rate [   95 %     ]     n  ms/plan   drift  total  settings")
    for setting in SETTINGS:
        before = time.perf_counter()
        found = run(setting, pairs, seed=arguments.planner_seed)
        print(line(setting, found, time.perf_counter() - before), flush=True)
        missed = np.flatnonzero(~found.arrived)
        if 0 < len(missed) <= 5:
            for i in missed:
                print(f"    missed: {pairs.start[i].round(1)} to {pairs.goal[i].round(1)}, {found.least[i]:.1f} left")


if __name__ == "__main__":
    main()

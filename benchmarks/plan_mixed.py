"""How far costs of rollouts in bfloat16 are from those in float32. python benchmarks/plan_mixed.py CKPT DATA

A start and the goal 25 steps later in each of the first episodes that are long enough (`--episodes`), 300 candidates of
5 blocks from N(0, I), as in the first iteration of the paper's CEM: differences of costs, and how many of the 30 elites
are the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

import lewm
from lewm.datasets.schema import open_source
from lewm.plan.cost import last_step
from lewm.plan.mixed import Mixed
from lewm.plan.noise import Noise
from lewm.plan.problem import Problem
from lewm.plan.space import ActionSpace

OFFSET, SAMPLES, HORIZON, ELITES = 25, 300, 5, 30


def main() -> None:
    """Print what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--episodes", type=int, default=50)
    given = parser.parse_args()
    model, source = lewm.load(given.checkpoint), open_source(given.data)
    long = [e for e, length in enumerate(source.lengths) if length > OFFSET][: given.episodes]
    z = model.encode(torch.from_numpy(np.stack([source.frames(e, np.array([0, OFFSET])) for e in long])))
    k, a = model.interface.frameskip, model.interface.action_dim
    free = torch.full((a,), 1e9).tolist()  # no bounds
    problem = Problem(
        model=model,
        z=z[:, :1],
        past=torch.zeros(len(z), 0, k, a),
        goal=z[:, 1:],
        cost=last_step,
        space=ActionSpace.of(model.interface, [-x for x in free], free),
        noise=Noise(0, tuple(range(len(z))), 0),
    )
    u = problem.noise.white(0, *problem.block_shape(SAMPLES, HORIZON))
    plain, mixed = problem.costs(u), replace(problem, rougher=Mixed(model)).costs(u)
    apart = (mixed / plain - 1).abs().flatten()
    elites = [[set(row.topk(ELITES, largest=False).indices.tolist()) for row in costs] for costs in (plain, mixed)]
    same = [len(one & other) / ELITES for one, other in zip(*elites, strict=True)]
    print(
        f"{len(z)} starts and goals: costs differ by {100 * apart.median():.2f} % in the median and by more than "
        f"{100 * apart.quantile(0.95):.1f} % for one in twenty; of {ELITES} elites {100 * np.mean(same):.1f} % are the "
        f"same, at least {100 * min(same):.0f} %"
    )


if __name__ == "__main__":
    main()

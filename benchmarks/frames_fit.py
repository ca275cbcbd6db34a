"""Are a file's frames those of its states? python benchmarks/frames_fit.py DATA ENV [--rows 2]

Puts the world into recorded states of every episode and compares its own picture with the recorded frame, by the mean
difference in grey levels. Prints how many episodes are more than 2 off, which, and how far off the others are.
"""

from __future__ import annotations

import argparse

import numpy as np

from lewm.datasets.schema import Source, open_source
from lewm.envs.predicates import Rules
from lewm.envs.restored import Restored, restored_world
from lewm.envs.rules import rules_of
from lewm.probes.plan_pairs import states_of
from lewm.progress import track

LIMIT = 2.0  # grey levels


def difference(source: Source, rules: Rules, world: Restored, episode: int, num: int) -> float:
    """Largest mean difference over `num` rows, evenly spread over an episode."""
    rows = np.linspace(0, source.lengths[episode] - 1, num).astype(int)
    states, frames = states_of(source, rules, episode), source.frames(episode, rows)
    own = np.stack([world.restore(states[row]) for row in rows])
    return float(np.abs(frames.astype(float) - own).mean(axis=(1, 2, 3)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("env")
    parser.add_argument("--rows", type=int, default=2, help="of each episode")
    arguments = parser.parse_args()
    source, rules = open_source(arguments.data), rules_of(arguments.env, "paper")
    world = restored_world(arguments.env, image_size=source.frame_shape[0])
    apart = np.array([difference(source, rules, world, e, arguments.rows) for e in track(range(len(source.keys)), "")])
    world.close()
    astray = np.flatnonzero(apart > LIMIT)
    off = f"more than {LIMIT:g} grey levels off in one of {arguments.rows} rows"
    print(f"{len(astray)} of {len(apart)} episodes are {off}")
    print(f"the others: at most {apart[apart <= LIMIT].max(initial=0):.3f}; those off: {astray.tolist()}")


if __name__ == "__main__":
    main()

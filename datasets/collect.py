"""Run a behaviour policy in a world and write what it saw and did."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from lewm.datasets.shard_writer import EpisodeWriter, is_finished
from lewm.errors import UserError
from lewm.progress import track


class World(Protocol):
    """What a collector needs: a Gymnasium environment whose observation is its frame (h, w, c) uint8."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]: ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]: ...


class Policy(Protocol):
    """A seeded behaviour."""

    def reset(self, seed: int) -> None: ...

    def __call__(self, world: Any) -> np.ndarray: ...


Made = TypeVar("Made")
Episode = tuple[np.ndarray, dict[str, np.ndarray]]


@contextmanager
def closing(world: Made) -> Iterator[Made]:
    """The world, closed at the end if it has a `close`."""
    try:
        yield world
    finally:
        getattr(world, "close", lambda: None)()


def episode_seed(seed: int, number: int) -> int:
    """Seed of one episode, a pure function of the run's seed and the episode's number."""
    digest = blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def run_episode(world: World, policy: Policy, seed: int) -> Episode:
    """One episode from reset to its end; numbers and arrays in `info` become columns. The last action is NaN."""
    frame, info = world.reset(seed=seed % 2**32)
    policy.reset(seed)
    frames, actions, infos = [frame], [], [info]
    rewards, ends = [np.nan], [(False, False)]
    while not any(ends[-1]):
        action = np.asarray(policy(world), dtype=np.float32)
        frame, reward, terminated, truncated, info = world.step(action)
        frames.append(frame)
        actions.append(action)
        infos.append(info)
        rewards.append(reward)
        ends.append((terminated, truncated))
    actions.append(np.full_like(actions[-1], np.nan))
    columns = {name: np.stack([np.asarray(info[name]) for info in infos]) for name in infos[0]}
    steps = len(frames)
    columns |= {
        "action": np.stack(actions),
        "reward": np.array(rewards, dtype=np.float64),
        "terminated": np.array([e[0] for e in ends]),
        "truncated": np.array([e[1] for e in ends]),
        "step_idx": np.arange(steps, dtype=np.int64),
        "id": np.full(steps, seed, dtype=np.int64),
    }
    return np.stack(frames), columns


def collect(
    make_world: Callable[[], World],
    make_policy: Callable[[], Policy],
    out: str | Path,
    *,
    episodes: int,
    seed: int = 0,
    workers: int = 0,
    codec: str = "auto",
    resume: bool = False,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write `episodes` episodes to shards; the bytes depend on the seed, not on the number of workers.

    An interrupted collection goes on with `resume`, and only with the settings that it began with.
    """
    if episodes < 1:
        raise UserError(f"--episodes is {episodes}; collect at least one")
    if resume and is_finished(out, provenance=provenance or {}, episodes=episodes):
        return
    seeds = [episode_seed(seed, number) for number in range(episodes)]
    make = (make_world, make_policy)
    writer = EpisodeWriter(out, codec=codec, resume=resume, provenance=provenance)
    if writer.keys_done != [str(s) for s in seeds[: writer.done]]:
        raise UserError(f"the shards in {out} were begun with another seed or for more episodes; start elsewhere")
    with writer:
        writer.expect({**(provenance or {}), "codec": codec})
        left = seeds[writer.done :]
        for s, (frames, columns) in track(
            zip(left, _in_order(make, left, workers), strict=True), "collecting", total=len(left)
        ):
            writer.add(frames, columns, key=str(s), seed=s)


def _in_order(make: tuple[Callable, Callable], seeds: list[int], workers: int) -> Iterator[Episode]:
    if workers == 0:
        with closing(make[0]()) as world:
            policy = make[1]()
            for seed in seeds:
                yield run_episode(world, policy, seed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=make) as pool:
        yield from pool.map(_run_in_worker, seeds, chunksize=4)


_own: dict[str, Any] = {}  # a worker process's world and policy


def _start_worker(make_world: Callable[[], World], make_policy: Callable[[], Policy]) -> None:
    _own.update(world=make_world(), policy=make_policy())


def _run_in_worker(seed: int) -> Episode:
    return run_episode(_own["world"], _own["policy"], seed)

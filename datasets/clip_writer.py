"""Files of clips for tests of surprise: one start and one list of actions, as it happened and with an event in it.

Every file has `pixels` (n, v, t, h, w, c), `action` (n, v, t, a), `state` (n, v, t, s), `perturb_step`, the first frame
that differs, and `kind` (v,). In a file of triples perturb_step is (n,). With other kinds it is (n, v), and there are
also `nature` (v,), of each kind, and `happens` (n, v). An event that is seen in none of the frames, or only in the last
few (fewer than `MIN_LEFT`), does not happen: its clip is the unperturbed one throughout, and its perturb_step is -1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from lewm.datasets.collect import Policy, episode_seed
from lewm.datasets.hdf5_writing import created_hdf5
from lewm.datasets.violation import MIN_CHANGE, PLAIN
from lewm.datasets.violation_simulated import AgentColour, Moved, Simulated, missing, simulated_kinds
from lewm.errors import UserError
from lewm.paths import make_folder, written_atomically
from lewm.progress import track

CLASSIC = (PLAIN, "visual", "physical")
FRAMES = 40
STEPS = (15, 20, 25)  # frames before which an event is made; a change of the laws shows in the next one
EARLY = range(5, 16)  # the same for events that wait for the agent to come upon them
MIN_LEFT = 6  # frames that show an event: a clip that is subsampled by 5 keeps one of them
NOWHERE = -1  # the perturb_step of clips in which nothing happens

Row = dict[str, Any]


class ClipWorld(Protocol):
    """What every clip takes; kinds of event ask for more (see `violation_simulated`)."""

    @property
    def state(self) -> np.ndarray: ...

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]: ...

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict]: ...

    def render(self) -> Any: ...

    def set_state(self, state: np.ndarray) -> None: ...

    def sample_state(self, rng: np.random.Generator) -> np.ndarray: ...


def collect_triples(
    world: ClipWorld,
    policy: Policy,
    out: str | Path,
    *,
    triples: int,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write triples of clips to an HDF5 file: undisturbed, the agent repainted, and the agent teleported.

    The policy is run once, closed loop; its actions are replayed for the other two. Before frame `perturb_step` all
    three are identical.
    """
    check_world(world)
    simulated_kinds(inside(world), [AgentColour.name, Moved.name])
    rows = (_triple(world, policy, episode_seed(seed, i)) for i in range(triples))
    _write(out, rows, triples, {"kind": CLASSIC, "visual_object": ["agent"] * triples}, provenance)


def collect_clips(
    world: ClipWorld,
    policy: Policy,
    out: str | Path,
    *,
    clips: int,
    kinds: Iterable[str],
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write clips with events of any kinds that the world can do (all of them: `all`) to an HDF5 file.

    Actions are the same in all versions of a clip. Other kinds in the same file do not change a kind's clips.
    """
    check_world(world)
    made = simulated_kinds(inside(world), kinds)
    rows = (_versions(world, policy, made, episode_seed(seed, i)) for i in range(clips))
    about = {"kind": [PLAIN, *(kind.name for kind in made)], "nature": [PLAIN, *(kind.nature for kind in made)]}
    _write(out, rows, clips, about, provenance)


def inside(world: ClipWorld) -> Any:
    """The world without Gymnasium's wrappers, which hide setters."""
    return getattr(world, "unwrapped", world)


def check_world(world: ClipWorld) -> None:
    """UserError where clips cannot be made in this world, before any is."""
    world.reset(seed=0)
    name = type(inside(world)).__name__
    lack = missing(inside(world), "state", "set_state", "sample_state", "render")
    if lack is not None:
        raise UserError(f"{name} has no {lack}, which every clip takes; give it one, or collect episodes")
    frame = world.render()
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"{name}.render() must give a frame (h, w, c) uint8, not {what}; set its render_mode")


def _write(out: str | Path, rows: Iterator[Row], num_rows: int, about: Row, provenance: dict[str, Any] | None) -> None:
    """Write rows as they come: frames at once, so that no file is too large for the memory; the rest at the end."""
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists; --triples writes one new HDF5 file: name another")
    if num_rows < 1:
        raise UserError(f"{num_rows} clips were asked for; collect at least one")
    make_folder(out.parent)
    how: dict[str, Any] = {"compression": "gzip", "shuffle": True}
    rest: list[Row] = []
    with written_atomically(out) as temporary, created_hdf5(temporary) as (file, check):
        for i, row in enumerate(track(rows, "collecting clips", total=num_rows)):
            frames = row.pop("pixels")
            if i == 0:
                chunks = (1, 1, 1, *frames.shape[2:])
                file.create_dataset("pixels", (num_rows, *frames.shape), frames.dtype, chunks=chunks, **how)
            file["pixels"][i] = frames  # type: ignore[index]
            check()
            rest.append(row)
        for name in rest[0]:
            file.create_dataset(name, data=np.stack([row[name] for row in rest]), **how)
        for name, words in about.items():
            file[name] = np.array(words, dtype=h5py.string_dtype())
        file.attrs["provenance"] = json.dumps(provenance or {})


def _triple(world: ClipWorld, policy: Policy, seed: int) -> Row:
    rng = np.random.default_rng([seed, 1])  # apart from the policy's own stream
    event = int(rng.choice(STEPS))
    start, actions = _behave(world, policy, seed)
    clips = [_replay(world, seed, start, actions), _replay(world, seed, start, actions, AgentColour(), event, rng)]
    colour = inside(world).colours["agent"]
    clips.append(_replay(world, seed, start, actions, Moved(), event, rng))
    return {
        "pixels": np.stack([frames for frames, _ in clips]),
        "state": np.stack([states for _, states in clips]),
        "action": np.stack([actions] * len(clips)),
        "perturb_step": np.int64(event),
        "teleport_state": clips[2][1][event],
        "visual_color": np.array(colour, dtype=np.uint8),
        "episode_seed": np.int64(seed),
    }


def _versions(world: ClipWorld, policy: Policy, kinds: list[Simulated], seed: int) -> Row:
    start, actions = _behave(world, policy, seed)
    plain = _replay(world, seed, start, actions)
    shared = int(np.random.default_rng([seed, 1]).choice(STEPS))  # so that kinds are compared at the same step
    clips, firsts = [plain], [NOWHERE]
    for kind in kinds:
        rng = np.random.default_rng([seed, *kind.name.encode()])  # so that no kind depends on the others
        event = int(rng.choice(EARLY)) if kind.waits else shared
        clip = _replay(world, seed, start, actions, kind, event, rng)
        first = first_difference(clip[0], plain[0])
        if first < event:
            raise UserError(
                f"{type(inside(world)).__name__} does not repeat itself: with the same seed, state and actions frame "
                f"{first} came out otherwise; make what it draws depend on the seed of reset alone"
            )
        happens = first <= FRAMES - MIN_LEFT and is_seen(clip[0], plain[0])
        clips.append(clip if happens else plain)
        firsts.append(first if happens else NOWHERE)
    return {
        "pixels": np.stack([frames for frames, _ in clips]),
        "state": np.stack([states for _, states in clips]),
        "action": np.stack([actions] * len(clips)),
        "perturb_step": np.array(firsts, dtype=np.int64),
        "happens": np.array(firsts) != NOWHERE,
        "episode_seed": np.int64(seed),
    }


def first_difference(frames: np.ndarray, others: np.ndarray) -> int:
    """The first frame in which two clips differ; their length where none does."""
    differs = (frames != others).any(axis=(1, 2, 3))
    return int(differs.argmax()) if differs.any() else len(frames)


def is_seen(frames: np.ndarray, others: np.ndarray) -> bool:
    """Whether two clips come apart by more than rounding does to a picture."""
    return bool(np.abs(frames.astype(np.int16) - others).max() > MIN_CHANGE)


def _behave(world: ClipWorld, policy: Policy, seed: int) -> tuple[np.ndarray, np.ndarray]:
    world.reset(seed=seed % 2**32)
    start = inside(world).sample_state(np.random.default_rng([seed, 2]))
    inside(world).set_state(start)
    policy.reset(seed)
    actions = []
    for _ in range(FRAMES):
        actions.append(np.asarray(policy(world), dtype=np.float32))
        world.step(actions[-1])
    return start, np.stack(actions)


def _replay(
    world: ClipWorld,
    seed: int,
    start: np.ndarray,
    actions: np.ndarray,
    kind: Simulated | None = None,
    event: int = NOWHERE,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (t, h, w, c) and states (t, s) of a clip; the world is changed just before frame `event` is drawn."""
    world.reset(seed=seed % 2**32)
    inside(world).set_state(start)
    frames, states = [], []
    for t, action in enumerate(actions):
        if t == event:
            assert kind is not None and rng is not None
            kind.intervene(inside(world), rng)
        frames.append(world.render())
        states.append(np.array(inside(world).state))
        world.step(action)
    return np.stack(frames), np.stack(states)

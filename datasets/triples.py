"""Clips for tests of surprise: the same start and actions three times, undisturbed, repainted, and teleported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from lewm.datasets.collect import Policy, episode_seed
from lewm.errors import UserError
from lewm.paths import make_folder, written_atomically
from lewm.progress import track

KINDS = ("unperturbed", "visual", "physical")
FRAMES = 40
STEPS = (15, 20, 25)  # frames at which the event may first be seen
COLOUR_DISTANCE = 150.0  # of a new colour from the old one and from the others, Euclidean in RGB
TELEPORT_DISTANCE = 40.0  # units


class DisturbableWorld(Protocol):
    """A world whose objects can be moved and repainted from outside."""

    colours: dict[str, tuple[int, int, int]]
    state: np.ndarray

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]: ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]: ...

    def render(self) -> np.ndarray: ...

    def set_state(self, state: np.ndarray) -> None: ...

    def sample_state(self, rng: np.random.Generator) -> np.ndarray: ...

    def set_colour(self, name: str, rgb: tuple[int, int, int]) -> None: ...


def collect_triples(
    world: DisturbableWorld,
    policy: Policy,
    out: str | Path,
    *,
    triples: int,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write triples of clips to an HDF5 file: pixels (n, 3, t, h, w, c), action (n, 3, t, a), state (n, 3, t, s).

    The policy is run once, closed loop; its actions are replayed for the other two. Before frame `perturb_step` all
    three are identical. Teleports move the agent by at least 40 units to a legal place; a new colour is at least 150
    from the old one and from all others.
    """
    out = Path(out)
    if out.is_dir() or out.exists():
        raise UserError(f"{out} exists; --triples writes one new HDF5 file: name another")
    make_folder(out.parent)
    made = [_triple(world, policy, episode_seed(seed, i)) for i in track(range(triples), "collecting triples")]
    with written_atomically(out) as temporary, h5py.File(temporary, "w") as file:
        for name in made[0]:
            values = np.stack([triple[name] for triple in made])
            options = {"chunks": (1, 1, 1, *values.shape[3:])} if name == "pixels" else {}
            file.create_dataset(name, data=values, compression="gzip", shuffle=True, **options)
        file["kind"] = np.array(KINDS, dtype=h5py.string_dtype())
        file["visual_object"] = np.array(["agent"] * triples, dtype=h5py.string_dtype())
        file.attrs["provenance"] = json.dumps(provenance or {})


def _triple(world: DisturbableWorld, policy: Policy, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 1])  # apart from the policy's own stream
    event = int(rng.choice(STEPS))
    start, actions = _behave(world, policy, seed)
    colour = _new_colour(rng, world.colours)
    clips = [_replay(world, seed, start, actions)]
    at_event = clips[0][1][event]
    place = _far_place(world, rng, at_event)
    clips.append(_replay(world, seed, start, actions, event=event, colour=colour))
    clips.append(_replay(world, seed, start, actions, event=event, place=place))
    return {
        "pixels": np.stack([frames for frames, _ in clips]),
        "state": np.stack([states for _, states in clips]),
        "action": np.stack([actions] * len(KINDS)),
        "perturb_step": np.int64(event),
        "teleport_state": place,
        "visual_color": np.array(colour, dtype=np.uint8),
        "episode_seed": np.int64(seed),
    }


def _behave(world: DisturbableWorld, policy: Policy, seed: int) -> tuple[np.ndarray, np.ndarray]:
    world.reset(seed=seed % 2**32)
    start = world.sample_state(np.random.default_rng([seed, 2]))
    world.set_state(start)
    policy.reset(seed)
    actions = []
    for _ in range(FRAMES):
        actions.append(np.asarray(policy(world), dtype=np.float32))
        world.step(actions[-1])
    return start, np.stack(actions)


def _replay(
    world: DisturbableWorld,
    seed: int,
    start: np.ndarray,
    actions: np.ndarray,
    *,
    event: int | None = None,
    colour: tuple[int, int, int] | None = None,
    place: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (t, h, w, c) and states (t, s) of a clip; the event is first seen at frame `event`."""
    world.reset(seed=seed % 2**32)
    world.set_state(start)
    frames, states = [], []
    for t, action in enumerate(actions):
        if t == event and colour is not None:
            world.set_colour("agent", colour)
        if t == event and place is not None:
            world.set_state(place)
        frames.append(world.render())
        states.append(world.state)
        world.step(action)
    return np.stack(frames), np.stack(states)


def _new_colour(rng: np.random.Generator, colours: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    others = np.array(list(colours.values()), dtype=float)
    while True:
        colour = rng.integers(0, 256, 3)
        if np.linalg.norm(others - colour, axis=1).min() >= COLOUR_DISTANCE:
            return tuple(int(c) for c in colour)  # type: ignore[return-value]


def _far_place(world: DisturbableWorld, rng: np.random.Generator, here: np.ndarray) -> np.ndarray:
    while True:
        place = world.sample_state(rng)
        if np.linalg.norm(place - here) >= TELEPORT_DISTANCE:
            return place

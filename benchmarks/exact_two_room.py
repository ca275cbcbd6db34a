"""A planted world model: Two-Room's own equations behind the planners' protocol, and pairs of places to go between.

What fails with it is the planner's fault; what fails with a learned model beside it is the model's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from lewm.clip import Interface
from lewm.datasets.collect import episode_seed, run_episode
from lewm.envs.two_room import DOOR_SPAN, NATIVE, PUSH, REACH, SPEED, WALL_X, WALL_ZONE, TwoRoom
from lewm.envs.two_room_policy import POLICIES

FAINT = 0.05  # alpha of the dot's edge, 17 units from its middle: nearer than the border of the picture


def next_xy(x: Tensor, y: Tensor, action_x: Tensor, action_y: Tensor, walls: bool) -> tuple[Tensor, Tensor]:
    """`lewm.envs.two_room.next_state` of many states at once, bit for bit; all of one shape."""
    new_x = (x + action_x.clamp(-1, 1) * SPEED).clamp(*REACH)
    new_y = (y + action_y.clamp(-1, 1) * SPEED).clamp(*REACH)
    if not walls:
        return new_x, new_y
    shut = (new_y < DOOR_SPAN[0]) | (new_y > DOOR_SPAN[1])
    left = x < WALL_X
    into_it = torch.where(left, new_x > WALL_ZONE[0], new_x < WALL_ZONE[1])
    before_it = torch.where(left, WALL_ZONE[0] - PUSH, WALL_ZONE[1] + PUSH)
    return torch.where(shut & into_it, before_it, new_x), new_y


class ExactTwoRoom:
    """Encodes a frame of the world as the agent's (x, y), and rolls out as the world does; d is 2.

    Args:
        image_size: side of its frames.
        walls: whether its inner wall stops the agent.
        mean: of the training actions, for the scale of a search.
        std: of the training actions.
        frameskip: actions a block.
        history: frames that it says it can use; it uses the last.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        walls: bool = True,
        mean: tuple[float, float] = (0.0, 0.0),
        std: tuple[float, float] = (1.0, 1.0),
        frameskip: int = 5,
        history: int = 1,
    ) -> None:
        self.interface = Interface(
            image_size=image_size, frameskip=frameskip, history=history, action_mean=mean, action_std=std
        )
        self.walls = walls
        edges = np.floor(np.arange(image_size + 1) * NATIVE / image_size + 0.5)
        self.middles = torch.from_numpy((edges[:-1] + edges[1:] - 1) / 2).float()
        self.widths = torch.from_numpy(np.diff(edges)).float()

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t 2"]:
        """Middle of the red dot, to a few hundredths of a unit at 224 pixels.

        White and black under the dot have R = G, so (R - G) / 255 is the dot's alpha wherever it stands.
        """
        alpha = (pixels[..., 0].float() - pixels[..., 1].float()) / 255
        mass = (alpha - FAINT).clamp(min=0) * self.widths * self.widths[:, None]
        x, y = (mass.sum(dim=axis) @ self.middles for axis in (-2, -1))
        return torch.stack([x, y], dim=-1) / mass.sum(dim=(-2, -1))[..., None]

    def rollout(
        self, z: Float[Tensor, "b t 2"], past: Float[Tensor, "b t-1 k a"], future: Float[Tensor, "b s n k a"]
    ) -> Float[Tensor, "b s n 2"]:
        """Open loop, step by step."""
        assert past.shape[1] == z.shape[1] - 1
        x, y = repeat(z[:, -1], "b d -> d b s", s=future.shape[1])
        states = []
        for block in rearrange(future, "b s n k a -> n k a b s").contiguous():
            for action_x, action_y in block:
                x, y = next_xy(x, y, action_x, action_y, self.walls)
            states.append(torch.stack([x, y], dim=-1))
        return torch.stack(states, dim=2)


@dataclass(frozen=True)
class Pairs:
    """Where episodes start and are to arrive; the action statistics of the episodes that they are from."""

    start: Float[np.ndarray, "p 2"]
    goal: Float[np.ndarray, "p 2"]
    mean: tuple[float, float]
    std: tuple[float, float]
    skipped: int  # episodes without such a pair


def draw_pairs(num: int, policy: str, *, seed: int, apart: int = 25, near: float = 8.0) -> Pairs:
    """One pair of each collected episode: a place and the one `apart` steps later, in the other room, not yet near.

    Start rows are uniform among those of the episode that qualify.
    """
    world, behaviour, rng = Unseen(), POLICIES[policy](), np.random.default_rng(seed)
    starts, goals, actions, number = [], [], [], 0
    while len(starts) < num:
        _, columns = run_episode(world, behaviour, episode_seed(seed, number))
        number += 1
        actions.append(columns["action"][:-1])
        state = columns["state"]
        a, b = state[:-apart], state[apart:]
        crossing = (a[:, 0] < WALL_X) != (b[:, 0] < WALL_X)
        rows = np.flatnonzero(crossing & (np.linalg.norm(a - b, axis=1) >= near))
        if len(rows):
            row = rng.choice(rows)
            starts.append(a[row])
            goals.append(b[row])
    taken = np.concatenate(actions)
    mean, std = (tuple(float(v) for v in f(axis=0)) for f in (taken.mean, taken.std))
    return Pairs(np.stack(starts), np.stack(goals), mean, std, number - num)  # type: ignore[arg-type]


class Unseen(TwoRoom):
    """The world without its pictures, which take nearly all of its time."""

    def render(self) -> np.ndarray:
        """One black pixel."""
        return np.zeros((1, 1, 3), np.uint8)


class Worlds:
    """One world for each pair, stepped side by side; it alone knows who has arrived."""

    def __init__(self, pairs: Pairs, *, image_size: int, walls: bool, near: float = 8.0) -> None:
        self.worlds, self.painter = [Unseen() for _ in pairs.start], TwoRoom(image_size=image_size)
        self.goal, self.near = pairs.goal, near
        for world, start in zip(self.worlds, pairs.start, strict=True):
            world.reset(seed=0, options={"state": start})
            world.set_physics(walls=walls)
        self.frames = torch.stack([self.picture(start) for start in pairs.start])
        self.goals = torch.stack([self.picture(goal) for goal in pairs.goal])[:, None]
        self.least = np.linalg.norm(pairs.start - pairs.goal, axis=1)  # least distance to the goal so far

    @property
    def arrived(self) -> np.ndarray:
        """Who has been within `near` of the goal."""
        return self.least < self.near

    def execute(self, blocks: Float[Tensor, "b e k a"], rows: np.ndarray) -> UInt8[Tensor, "b e h w c"]:
        """The frame after each block, in the worlds of some rows."""
        return torch.stack([self._execute_one(i, row.numpy()) for i, row in zip(rows, blocks, strict=True)])

    def _execute_one(self, i: int, blocks: np.ndarray) -> Tensor:
        frames = []
        for block in blocks:
            for action in block:
                self.worlds[i].step(action)
                self.least[i] = min(self.least[i], np.linalg.norm(self.worlds[i].state - self.goal[i]))
            frames.append(self.picture(self.worlds[i].state))
        return torch.stack(frames)

    def picture(self, state: np.ndarray) -> UInt8[Tensor, "h w c"]:
        """What the world looks like with the agent there."""
        self.painter.set_state(state)
        return torch.from_numpy(self.painter.render())

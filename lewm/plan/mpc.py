"""Receding horizon: plan, have the first blocks executed, look, plan again, until the budget is spent.

It sees frames and its own actions; states and success belong to whoever steps the world.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lewm.errors import UserError
from lewm.plan.cost import Cost, last_step
from lewm.plan.mixed import Mixed
from lewm.plan.noise import Noise
from lewm.plan.problem import Problem
from lewm.plan.protocol import Model, Plan, Planner, Warm
from lewm.plan.space import ActionSpace


@dataclass
class PlanRecord:
    """What is known of one decision of several episodes; tensors are on the CPU.

    Args:
        step: environment steps executed before it.
        episodes: keys of the episodes, the order of all `b`.
        milliseconds: wall time of the search for all of them together, encoding apart.
        encode_milliseconds: wall time of encoding the frames seen since the last plan (at the start: frame and goals).
        best: least cost of each iteration (i, b).
        mean: mean cost of each iteration (i, b).
        cost: cost (b) of the chosen blocks.
        blocks: chosen blocks (b, n, k, a), raw; the first `e` of them are executed.
        predicted: embeddings (b, n, d) that the model expects of them.
        realised: embeddings (b, e, d) of the frames that came; None until they are observed.
    """

    step: int
    episodes: tuple[int | str, ...]
    milliseconds: float
    encode_milliseconds: float
    best: Float[Tensor, "i b"]
    mean: Float[Tensor, "i b"]
    cost: Float[Tensor, " b"]
    blocks: Float[Tensor, "b n k a"]
    predicted: Float[Tensor, "b n d"]
    realised: Float[Tensor, "b e d"] | None = None

    def drift(self) -> Float[Tensor, "b e"]:
        """mean((predicted - realised)^2) over dimensions, after each executed block: how far the model was wrong."""
        if self.realised is None:
            raise UserError(f"the plan of step {self.step} was not executed; observe its frames first")
        return (self.predicted[:, : self.realised.shape[1]] - self.realised).square().mean(dim=-1)


class MPC:
    """Runs a planner for `b` episodes side by side, each with its own frames, goals and noise.

        mpc.start(frames, goals, episodes)
        while not mpc.done:
            blocks = mpc.plan()         # (b, e, k, a), raw: to be executed now
            mpc.observe(frames_after)   # (b, e, h, w, c): one frame after each executed block

    Every frame is encoded once. The context holds the frames after the blocks that were really executed, as many as the
    model's history at most; in the beginning it is shorter, which is legal. The blocks of a plan that were not executed
    start the next search. An episode's plans do not depend on which others run beside it.

    Args:
        model: see `lewm.plan.protocol`; where its parameters are, everything is computed.
        planner: a solver.
        space: bounds and scale of actions; UserError if their size is not the model's.
        cost: see `lewm.plan.cost`.
        execute: blocks executed before planning again, 1 to the planner's horizon; None is all, as in the paper.
        budget: environment steps an episode, a multiple of the model's frameskip; the last plan is cut to it.
        seed: of the noise, beside each episode's key and step.
        chunk: most candidates rolled out at once, over all episodes; bounds memory. None is 512 on a CPU, where they
            then stay in its cache, and 16,384 elsewhere.
        threads: that share each chunk on a CPU, see `lewm.plan.parallel`; the model must bear that, as a `WorldModel`
            does.
        mixed: whether candidates are rolled out in bfloat16, see `lewm.plan.mixed`; frames, goals and the chosen plan
            are computed in float32 all the same.
        warm_start: whether a search starts from what is left of the last plan.
        device: where to compute.
    """

    def __init__(
        self,
        model: Model,
        planner: Planner,
        space: ActionSpace,
        *,
        cost: Cost = last_step,
        execute: int | None = None,
        budget: int = 50,
        seed: int = 0,
        chunk: int | None = None,
        threads: int = 1,
        mixed: bool = False,
        warm_start: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        k, horizon = model.interface.frameskip, planner.horizon
        execute = horizon if execute is None else execute
        if space.dim != model.interface.action_dim:
            raise UserError(f"actions of {space.dim} numbers for a model that takes {model.interface.action_dim}")
        if not 1 <= execute <= horizon:
            raise UserError(f"of a horizon of {horizon} blocks 1 to {horizon} can be executed, not {execute}")
        if budget < 1 or budget % k:
            raise UserError(f"a budget of {budget} steps is no multiple of the model's frameskip {k}")
        self.device = torch.device(device)
        chunk = (512 if self.device.type == "cpu" else 16_384) if chunk is None else chunk
        if chunk < 1:
            raise UserError(f"chunk is the number of candidates rolled out at once, at least 1, not {chunk}")
        if threads < 1:
            raise UserError(f"threads is how many share the candidates, at least 1, not {threads}")
        self.rougher = Mixed(model) if mixed else None
        self.threads = threads if self.device.type == "cpu" else 1
        self.model, self.planner, self.cost = model, planner, cost
        self.execute, self.budget, self.seed, self.chunk, self.warm_start = execute, budget, seed, chunk, warm_start
        self.space = space.to(self.device)
        self.records: list[PlanRecord] = []
        self.episodes: tuple[int | str, ...] = ()
        self.step = 0
        self._waiting: Plan | None = None

    def start(
        self,
        frames: UInt8[Tensor, "b h w c"],
        goals: UInt8[Tensor, "_ g _ _ _"],
        episodes: Sequence[int | str],
    ) -> None:
        """Begin with these episodes, goals being (b, g, h, w, c); records of earlier ones are dropped.

        UserError for frames and goals of different size, or keys that are not one for each episode, all different.
        """
        if goals.dim() != 5 or goals.shape[1] < 1 or frames.dim() != 4 or goals.shape[2:] != frames.shape[1:]:
            raise UserError(
                f"goal images of {tuple(goals.shape[2:])} for frames of {tuple(frames.shape[1:])} (h, w, c)"
            )
        if not len(frames) == len(goals) == len(episodes) or len(set(episodes)) != len(episodes) or not len(episodes):
            raise UserError(
                f"{len(frames)} frames, {len(goals)} goals and {len(set(episodes))} different keys for {len(episodes)} "
                "episodes; each needs one"
            )
        self.episodes, self.step, self.records = tuple(episodes), 0, []
        self._waiting, self._warm, self._encode_ms = None, None, 0.0
        self._z, self._goal = self._encode(frames[:, None]), self._encode(goals)
        k, a = self.model.interface.frameskip, self.space.dim
        self._past = torch.zeros(len(frames), 0, k, a, device=self.device)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.step >= self.budget

    @property
    def goal(self) -> Float[Tensor, "b g d"]:
        """Embeddings of the goal frames."""
        return self._goal

    def plan(self) -> Float[Tensor, "b e k a"]:
        """The next blocks to execute, raw, within the bounds, on the CPU; e is `execute`, less at the budget's end."""
        assert self.episodes and not self.done and self._waiting is None, "start, then plan and observe in turn"
        problem = Problem(
            model=self.model,
            z=self._z,
            past=self._past,
            goal=self._goal,
            cost=self.cost,
            space=self.space,
            noise=Noise(self.seed, self.episodes, self.step, self.device),
            chunk=self.chunk,
            threads=self.threads,
            rougher=self.rougher,
        )
        before = self._clock()
        plan = self.planner.plan(problem, self._warm if self.warm_start else None)
        self._note(problem, plan, 1000 * (self._clock() - before))
        left = (self.budget - self.step) // self.model.interface.frameskip
        self._waiting = plan
        return plan.blocks[:, : min(self.execute, left)].cpu()

    def observe(self, frames: UInt8[Tensor, "b e h w c"], executed: Float[Tensor, "b e k a"] | None = None) -> None:
        """Take in the frame after each executed block, and the raw blocks themselves if they were not those planned.

        Fewer blocks than planned may have been executed: as many as there are frames, at least one.
        """
        assert self._waiting is not None, "plan first"
        e = frames.shape[1]
        blocks = self._waiting.blocks[:, :e] if executed is None else executed.to(self._past)
        if len(frames) != len(self.episodes) or not 1 <= e <= self.execute or blocks.shape[:2] != frames.shape[:2]:
            raise UserError(
                f"frames of {frames.shape[0]} episodes after {e} blocks, where {len(self.episodes)} episodes "
                f"executed 1 to {self.execute}"
            )
        seen = self._encode(frames)
        self.records[-1].realised = seen.cpu()
        history = self.model.interface.history
        self._z = torch.cat([self._z, seen], dim=1)[:, -history:]
        self._past = torch.cat([self._past, blocks], dim=1)
        self._past = self._past[:, self._past.shape[1] - (self._z.shape[1] - 1) :]
        self._warm: Warm | None = self._waiting.after(e)
        self._waiting = None
        self.step += e * self.model.interface.frameskip

    def keep(self, rows: Bool[Tensor, " b"]) -> None:
        """Go on with some of the episodes only, between `observe` and `plan`; the others' records stay."""
        assert self._waiting is None, "observe first"
        index = rows.nonzero()[:, 0]
        self.episodes = tuple(self.episodes[i] for i in index.tolist())
        at = index.to(self.device)
        self._z, self._past, self._goal = self._z[at], self._past[at], self._goal[at]
        self._warm = None if self._warm is None else self._warm.rows(at)

    def _encode(self, frames: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]:
        before = self._clock()
        with torch.no_grad():
            z = self.model.encode(frames.to(self.device))
        self._encode_ms += 1000 * (self._clock() - before)
        return z

    def _note(self, problem: Problem, plan: Plan, milliseconds: float) -> None:
        predicted = problem.predicted(plan.blocks)
        cost = self.cost(predicted[:, None], self._goal, plan.blocks[:, None])[:, 0]
        found = (x.cpu() for x in (plan.best, plan.mean, cost, plan.blocks, predicted))
        self.records.append(PlanRecord(self.step, self.episodes, milliseconds, self._encode_ms, *found))
        self._encode_ms = 0.0

    def _clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

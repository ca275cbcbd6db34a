"""`lewm plan`: goal-reaching by MPC in latent space, judged under a protocol, beside a random policy."""

from __future__ import annotations

import csv
import io as text_io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.allocator import keep_freed
from lewm.datasets.schema import Source, open_source
from lewm.envs.predicates import Rules
from lewm.envs.restored import Restored, restored_world
from lewm.envs.rules import rules_of
from lewm.errors import UserError
from lewm.plan import make_solver
from lewm.plan.cost import COSTS, Cost, action_penalty, weighted
from lewm.plan.evaluate import Evaluation, Rollout, evaluate, random_policy
from lewm.plan.manifest import Manifest
from lewm.plan.mpc import MPC
from lewm.plan.protocol import Planner
from lewm.plan.protocols import Protocol, protocol_of
from lewm.plan.space import ActionSpace
from lewm.precision import FULL, MIXED, best_precision
from lewm.probes import plan_scores as scores
from lewm.probes import results as io
from lewm.probes.features import device_of
from lewm.probes.plan_figures import block_distances, plan_figures
from lewm.probes.plan_pairs import AUTO, check_look, check_steps, check_world, find_pairs, goals_of, held_out, tasks_of
from lewm.probes.plan_shown import shown_of
from lewm.probes.plan_tables import print_plan
from lewm.probes.plan_videos import write_videos
from lewm.probes.setting import Setting, check_fits, prepare

ELITE_SHARE = 10  # of the samples one in ten is an elite, as in the paper
WITH_ELITES = ("cem", "icem")
SETTINGS = ("horizon", "iterations", "samples", "elites", "std", "exponent", "lr", "starts")  # of a solver


@dataclass(frozen=True)
class Runs:
    """What was run: the planner and the random policy on the same pairs under the same seeds."""

    manifest: Manifest
    planned: Evaluation
    random: Evaluation
    goals: list[np.ndarray]  # true states
    rules: Rules

    @property
    def labels(self) -> np.ndarray:
        """The episode of each pair, as a number."""
        return np.unique([pair.episode for pair in self.manifest.pairs], return_inverse=True)[1]

    def distances(self, rollout: Rollout) -> np.ndarray:
        """True distance to the goal at the start and after every step."""
        goal = self.goals[[pair.key for pair in self.manifest.pairs].index(rollout.key)]
        return np.array([self.rules.distance(state, goal) for state in rollout.states])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The arguments of `lewm plan`, which says what they mean; UserError for those that make no sense."""

    env: str
    data: str | Path
    out: str | Path | None = None
    solver: str = "cem"
    protocol: str = "strict"
    manifest: str | Path | None = None
    write_manifest: str | Path | None = None
    split: str = AUTO
    pairs: int | None = None
    seeds: int | None = None
    seed: int = 0
    horizon: int | None = None
    execute: int | None = None
    iterations: int | None = None
    samples: int | None = None
    elites: int | None = None
    std: float | None = None
    exponent: float | None = None
    lr: float | None = None
    starts: int | None = None
    cost: str = "last"
    action_penalty: float = 0.0
    goals: int = 1
    offset: int | None = None
    budget: int | None = None
    near: float | None = None
    batch: int = 64
    films: int = 4
    plain: bool = False
    compile: bool = False
    precision: str = FULL

    def __post_init__(self) -> None:
        for name in ("pairs", "seeds", "batch", "goals"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.precision not in (FULL, MIXED):
            raise UserError(f"--precision is {self.precision}; one of {FULL}, {MIXED}")
        if self.films < 0:
            raise UserError(f"--films is {self.films}; it must be at least 0")

    @property
    def own(self) -> Protocol:
        """The protocol as it is."""
        return protocol_of(self.protocol, self.env)

    @property
    def rule(self) -> Protocol:
        """The protocol as it is asked for."""
        return self.own.changed(offset=self.offset, budget=self.budget, near=self.near)

    @property
    def planner_seeds(self) -> list[int]:
        """One for each time that every pair is planned for."""
        return [self.seed + i for i in range(self.own.seeds if self.seeds is None else self.seeds)]


def plan(checkpoint: str | Path, **arguments: Any) -> dict[str, Any]:
    """Plan for every pair under every seed, and write what came of it; the arguments are those of `Asked`."""
    asked = Asked(**arguments)
    rule, rules = asked.rule, rules_of(asked.env, asked.protocol, asked.near)
    planner = solver_of(asked.solver, {name: getattr(asked, name) for name in SETTINGS})
    check_cost(asked.cost, asked.action_penalty, asked.goals, planner.horizon)

    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, io.out_folder(asked.out, [path], f"plan/{asked.protocol}"), asked.seed)
    if asked.plain:
        setting.model.take_plain_paths()
    elif device_of(setting.model).type == "cpu":
        keep_freed()
    if asked.precision == MIXED and best_precision(device_of(setting.model).type) != MIXED:
        print(f"notice: {MIXED} is emulated on this hardware, or slower; --precision {FULL} is not")
    if asked.compile:
        setting.model.compile_parts()
    source = open_source(asked.data)
    make_world, make_mpc = makers(asked, setting, source, rules, planner)
    where = {"manifest": asked.manifest, "split": asked.split, "pairs": asked.pairs}
    sample, about = find_pairs(setting, source, rules, asked.env, rule, **where)
    if len(sample.pairs) < (wanted := asked.pairs or rule.pairs):
        there = f"there are no more in {asked.data}, split {sample.split}"
        print(f"notice: {len(sample.pairs)} pairs instead of {wanted}: {there}")
    tasks = tasks_of(sample, source, rules, goals=asked.goals, frameskip=setting.model.interface.frameskip)
    with closing(make_world()) as world:
        difference = check_look(sample, source, rules, world, asked.env)
        check_steps(sample, source, rules, world, asked.env)
    if asked.write_manifest is not None:
        sample.write(asked.write_manifest)

    apart = held_out(sample, source, setting)
    if asked.own.held_out and apart[0] is not True:
        print(f"notice: perhaps not held out: {apart[1]}")

    how = {"seeds": asked.planner_seeds, "batch": asked.batch}
    what = f"{asked.solver}, {len(tasks)} pairs"
    planned = evaluate(make_mpc, tasks, make_world, **how, shown=asked.films, what=what)
    floor = evaluate(lambda seed: random_policy(make_mpc(seed)), tasks, make_world, **how, what="random policy")
    runs = Runs(sample, planned, floor, goals_of(sample, source, rules), rules)

    result = setting.describe(asked.data, sample.fingerprint, sample.split)
    result |= described(asked, planner, about, apart, num_pairs=len(tasks))
    result |= {"look_difference": difference, "frameskip": setting.model.interface.frameskip}
    result |= summarise(runs, result["execute"], asked.seed)
    write_pairs(runs, setting.out / "pairs.csv")
    shown = shown_of(runs, setting.model, source, sample.split)
    result["videos"] = write_videos(shown, setting.out)
    result = io.write_result(result, plan_figures(runs, shown, result), setting.out)
    print_plan(result)
    return result


def makers(
    asked: Asked, setting: Setting, source: Source, rules: Rules, planner: Planner
) -> tuple[Callable[[], Restored], Callable[[int], MPC]]:
    """How to make a world, and a controller for a seed; UserError where data, world, model and settings do not fit."""
    model, interface = setting.model, setting.model.interface
    check_fits(source.frame_shape, source.action_dim, interface, asked.data)

    def make_world() -> Restored:
        return restored_world(asked.env, image_size=source.frame_shape[0])

    with closing(make_world()) as world:
        check_world(world, rules, asked.env, source)
        space = ActionSpace.of(interface, world.low, world.high)
    cost = cost_of(asked.cost, asked.action_penalty, space)
    how = {"cost": cost, "execute": asked.execute, "budget": asked.rule.budget, "device": device_of(model)}
    # a compiled graph has the number of threads of its first call, so candidates are then not divided among threads
    how["threads"] = 1 if asked.plain or asked.compile else torch.get_num_threads()
    how["mixed"] = asked.precision == MIXED

    def make_mpc(seed: int) -> MPC:
        return MPC(model, planner, space, seed=seed, **how)

    make_mpc(asked.seed)  # settings that make no sense are said before anything is drawn
    return make_world, make_mpc


def described(
    asked: Asked, planner: Planner, about: dict[str, Any], apart: tuple[bool | None, str], *, num_pairs: int
) -> dict[str, Any]:
    """What was done, on which pairs, whether they were held out, and what of the rule was missed."""
    counted = {"pairs": num_pairs, "asked": asked.pairs, "seeds": len(asked.planner_seeds), "goals": asked.goals}
    missed = asked.rule.missed(asked.own, **counted, held_out=apart[0], as_drawn=about["as_drawn"])
    return {
        "env": asked.env,
        "protocol": asked.protocol,
        "rule": asked.own.describe(),
        "rule_met": not missed,
        "rule_missed": missed,
        "offset": asked.rule.offset,
        "budget": asked.rule.budget,
        "near": asked.near,
        "held_out": apart[0],
        "held_out_how": apart[1],
        "solver": {"name": asked.solver, **settings_of(planner)},
        "objective": asked.cost,
        "action_penalty": asked.action_penalty,
        "goals": asked.goals,
        "execute": planner.horizon if asked.execute is None else asked.execute,
        "seeds": asked.planner_seeds,
        "batch": asked.batch,
        "plain": asked.plain,
        "compile": asked.compile,
        "precision": asked.precision,
        "manifest": {"path": str(asked.manifest or asked.write_manifest or "")} | about,
    }


def check_cost(name: str, penalty: float, goals: int, horizon: int) -> None:
    """UserError for a cost that there is not, or that goals and horizon make no sense of."""
    if name not in COSTS:
        raise UserError(f"no cost {name!r}; one of {', '.join(COSTS)}")
    if name == "order" and goals == 1:
        raise UserError("--cost order with one goal frame is --cost last; give --goals 2 or more")
    if name == "order" and goals > horizon:
        raise UserError(f"--cost order: {goals} goal frames in order need a horizon of as many blocks, not {horizon}")
    if not penalty >= 0:
        raise UserError(f"--action_penalty is {penalty}; it must be at least 0")


def cost_of(name: str, penalty: float, space: ActionSpace) -> Cost:
    """A cost by name, and the mean squared action on the scale of the search with its weight."""
    return weighted((1.0, COSTS[name]), (penalty, action_penalty(space))) if penalty else COSTS[name]


def solver_of(name: str, given: dict[str, Any]) -> Planner:
    """A solver with the settings that were given; with other samples one in ten of them is an elite."""
    settings = {key: value for key, value in given.items() if value is not None}
    if "samples" in settings and "elites" not in settings and name in WITH_ELITES:
        settings["elites"] = max(1, settings["samples"] // ELITE_SHARE)
    return make_solver(name, **settings)


def settings_of(planner: Planner) -> dict[str, Any]:
    """A solver's own settings."""
    return {name: value for name, value in vars(planner).items() if not name.startswith("_")}


def summarise(runs: Runs, execute: int, seed: int) -> dict[str, Any]:
    """Every number of a result."""
    sample, labels, num = runs.manifest, runs.labels, len(runs.manifest.pairs)
    solved, floor = runs.planned.solved(num), runs.random.solved(num)
    counts = sample.counts
    excludes = protocol_of(sample.protocol, sample.world).excludes
    first, points = runs.planned.rollouts[:num], block_distances(runs)
    return {
        "n": num,
        "success": scores.success(solved, labels, seed=seed),
        "random": scores.success(floor, labels, seed=seed),
        "difference": scores.difference(solved, floor, labels, seed=seed),
        "solved_at_start": {
            "pairs": sum(rollout.solved_at == 0 for rollout in first),
            "candidates": counts["reasons"].get("solved_at_start", 0),
            "of_candidates": counts["candidates"],
        },
        "excluded": counts["reasons"] if excludes else {},
        "drawn_from": counts,
        "plan_ms": runs.planned.plan_ms(),
        "search_ms": runs.planned.search_ms(),
        "encode_ms": runs.planned.encode_ms(),
        "distance": {
            "unit": runs.rules.unit,
            "start_median": float(np.median([runs.distances(r)[0] for r in first])),
            "least_median": float(np.median([runs.distances(r).min() for r in runs.planned.rollouts])),
            "random_least_median": float(np.median([runs.distances(r).min() for r in runs.random.rollouts])),
        },
        "latent_vs_true": {"spearman": scores.correlation(*points[:2]), "n": len(points[0])},
        "drift": scores.drift(runs.planned, labels, seed=seed),
        "promised": scores.promises(runs.planned, execute),
        "costs": scores.costs(runs.planned),
    }


def write_pairs(runs: Runs, path: Path) -> None:
    """Every pair under every seed: a row each."""
    header = ("pair", "episode", "start", "goal", "seed", "solved", "step", "distance_at_start", "least_distance")
    table = text_io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*header, "random_solved", "random_step", "random_least_distance"))
    num = len(runs.manifest.pairs)
    for i, (rollout, other) in enumerate(zip(runs.planned.rollouts, runs.random.rollouts, strict=True)):
        cells: list[Any] = [i % num, *runs.manifest.pairs[i % num], rollout.seed]
        distances = runs.distances(rollout)
        for one, before in ((rollout, [f"{distances[0]:.4f}"]), (other, [])):
            least = f"{runs.distances(one).min():.4f}"
            cells += [int(one.solved_at is not None), "" if one.solved_at is None else one.solved_at, *before, least]
        writer.writerow(cells)
    io.write_text(path, table.getvalue())

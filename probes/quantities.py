"""Probes of one quantity: linear and MLP, from a model's features and from every control's, fold by fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes.controls import shuffled_over_episodes
from lewm.probes.features import Table
from lewm.probes.frames import Frames, choose_frames, union
from lewm.probes.linear import fit_linear
from lewm.probes.mlp import fit_mlp
from lewm.probes.parts import FEWEST, Parts, Plan
from lewm.probes.scores import score
from lewm.probes.seams import Probe, Rows, Scale
from lewm.probes.targets import Quantity, usable_rows, values_of, varies

PROBES: dict[str, Callable[[Rows, Rows, int], Probe]] = {
    "linear": lambda train, val, seed: fit_linear(train, val),
    "mlp": lambda train, val, seed: fit_mlp(train, val, seed=seed),
}


@dataclass(frozen=True)
class Values:
    """A quantity at the frames in which it is known, and what it takes to read it there."""

    quantity: Quantity
    frames: Frames
    y: Float[np.ndarray, "n c"]
    num_frames: int  # that a probe sees
    frameskip: int
    varying: Bool[np.ndarray, " c"]  # components that are not constant in training
    dropped: dict[str, int]  # frames in which it is NaN or infinite, by part
    chosen: dict[str, Any]  # how frames were chosen, by part

    @property
    def needed(self) -> Frames:
        """Every frame whose features a probe sees."""
        return union([self.frames.before(i * self.frameskip) for i in range(self.num_frames)])

    def rows(self, table: Table, name: str, episodes: Int[np.ndarray, " m"]) -> Rows:
        """Features `name` and the quantity in those episodes."""
        kept = np.isin(self.frames.episode, episodes)
        frames = self.frames.of(episodes)
        return Rows(table.at(name, frames, self.num_frames, self.frameskip), self.y[kept], frames.episode)

    @property
    def about(self) -> dict[str, Any]:
        """What results say of the quantity itself."""
        q = self.quantity
        return {
            "unit": q.unit,
            "error_unit": q.error_unit,
            "kind": q.kind,
            "column": q.column,
            "num_frames": self.num_frames,
            "components": q.components,
            "constant_components": [c for c, varies in zip(q.components, self.varying, strict=True) if not varies],
            "dropped": self.dropped,
            "parts": self.chosen,
        }


def observe(source: Source, quantity: Quantity, plan: Plan, max_frames: int, *, history: int, frameskip: int) -> Values:
    """The quantity's values at chosen frames; UserError where they are mostly missing or constant.

    A probe that sees several frames gets as many fewer examples, so that about `max_frames` of a part are embedded.
    """
    num = quantity.num_frames(history)
    names = ("train", "val", "test") if len(plan.folds) == 1 else ("all",)
    frames, values, dropped, chosen = [], [], {}, {}
    for name, episodes in zip(names, plan.groups, strict=True):
        part = choose_frames(source.lengths, episodes, -(-max_frames // num), first=(num - 1) * frameskip)
        if len(part) == 0:
            raise UserError(
                f"{quantity.name} is read from {num} frames {frameskip} rows apart, and no {name} episode of "
                f"{source.path} has the {(num - 1) * frameskip + 1} rows for it"
            )
        y = values_of(source, quantity, part, frameskip)
        usable = usable_rows(y, quantity, name)
        frames.append(Frames(part.episode[usable], part.row[usable], part.available))
        values.append(y[usable])
        dropped[name], chosen[name] = int((~usable).sum()), part.describe()
    both = Frames(np.concatenate([f.episode for f in frames]), np.concatenate([f.row for f in frames]), 0)
    y = np.concatenate(values)
    require_episodes(both, plan, quantity)
    trained = [np.isin(both.episode, fold.train) for fold in plan.folds]
    varying = np.all([varies(y[own], quantity) for own in trained], axis=0)
    y[:, ~varying] = y[trained[0]][:, ~varying].mean(axis=0)  # held still, so that no probe is fitted to their rounding
    return Values(quantity, both, y, num, frameskip, varying, dropped, chosen)


def require_episodes(frames: Frames, plan: Plan, quantity: Quantity) -> None:
    """UserError where a quantity is known in too few episodes to fit a probe or to measure it."""
    for fold in plan.folds:
        if not all(np.isin(frames.episode, episodes).any() for episodes in (fold.train, fold.val, fold.test)):
            raise UserError(
                f"{quantity.name} is known in no chosen frame of a part or fold; leave it out of --targets, or raise "
                "--max_frames"
            )
    measured = len(np.unique(frames.of(plan.test).episode))
    if measured < FEWEST:
        raise UserError(
            f"{quantity.name} is known in {measured} of the episodes to measure on, at least {FEWEST} are needed: give "
            "more episodes, use every one with --split all, or leave it out of --targets"
        )


@dataclass(frozen=True)
class Reading:
    """Fitted probes, one for each fold, and what they read on its test episodes, in the quantity's own numbers."""

    values: Values
    folds: list[tuple[Parts, Probe, Scale]]
    scale: Scale  # of all training frames, by which scores are standardised
    true: Float[np.ndarray, "n c"]
    read: Float[np.ndarray, "n c"]
    episode: Int[np.ndarray, " n"]

    def of(self, x: Float[np.ndarray, "m d"], episode: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m c"]:
        """What other features say, each read by the fold that tests its episode."""
        found = np.full((len(x), self.true.shape[1]), np.nan)
        for parts, probe, scale in self.folds:
            own = np.isin(episode, parts.test)
            if own.any():
                found[own] = scale.undo(probe.predict(x[own]))
        return found

    def score(self, *, seed: int = 0) -> dict[str, Any]:
        """Scores on all test episodes."""
        return self.score_of(self.true, self.read, self.episode, seed=seed)

    def score_of(
        self,
        true: Float[np.ndarray, "m c"],
        read: Float[np.ndarray, "m c"],
        episode: Int[np.ndarray, " m"],
        *,
        seed: int,
    ) -> dict[str, Any]:
        """Scores of other readings, standardised by the same training frames."""
        fold, kept = fold_of(episode, [parts for parts, _, _ in self.folds]), self.values.varying
        return score(self.values.quantity, self.scale, true, read, episode, fold=fold, kept=kept, seed=seed)


def read(
    table: Table,
    values: Values,
    plan: Plan,
    name: str,
    probe: str,
    *,
    seed: int = 0,
    change: Callable[[Rows], Rows] = lambda rows: rows,
) -> Reading:
    """Fit a probe on features `name` in every fold, and read its test episodes; `change` is done to each part first."""
    folds, true, found, episode = [], [], [], []
    for parts in plan.folds:
        train, val, test = (change(values.rows(table, name, e)) for e in (parts.train, parts.val, parts.test))
        scale, fitted = Scale.of(train.y), PROBES[probe](train, val, seed)
        folds.append((parts, fitted, scale))
        true.append(test.y)
        found.append(scale.undo(fitted.predict(test.x)))
        episode.append(test.episode)
    return Reading(values, folds, scale_of(values, plan), *map(np.concatenate, (true, found, episode)))


def fold_of(episode: Int[np.ndarray, " n"], folds: list[Parts]) -> Int[np.ndarray, " n"]:
    """Number of the fold that tests each row's episode."""
    return np.argmax([np.isin(episode, parts.test) for parts in folds], axis=0)


def scale_of(values: Values, plan: Plan) -> Scale:
    """The scale of all training frames; those of several folds together are all frames."""
    trained = np.unique(np.concatenate([parts.train for parts in plan.folds]))
    return Scale.of(values.y[np.isin(values.frames.episode, trained)])


def read_both(table: Table, values: Values, plan: Plan, name: str, **how: Any) -> dict[str, Reading]:
    """Both probes of features `name`."""
    return {probe: read(table, values, plan, name, probe, **how) for probe in PROBES}


def score_controls(table: Table, values: Values, plan: Plan, *, seed: int) -> dict[str, Any]:
    """The same probes where there is no training, no network, no relation, no input."""
    readings = {
        "untrained": read_both(table, values, plan, "untrained/embedding", seed=seed),
        "pixels": read_both(table, values, plan, "pixels", seed=seed),
        "shuffled": read_both(
            table, values, plan, "embedding", seed=seed, change=lambda rows: shuffled_over_episodes(rows, seed=seed)
        ),
    }
    found = {name: {probe: r.score(seed=seed) for probe, r in both.items()} for name, both in readings.items()}
    return found | {"constant": score_constant(values, plan, seed=seed)}


def score_constant(values: Values, plan: Plan, *, seed: int = 0) -> dict[str, Any]:
    """Scores of predicting the training mean; r is undefined."""
    true, mean, episode = [], [], []
    for parts in plan.folds:
        train, test = (np.isin(values.frames.episode, e) for e in (parts.train, parts.test))
        true.append(values.y[test])
        mean.append(np.broadcast_to(values.y[train].mean(axis=0), true[-1].shape))
        episode.append(values.frames.episode[test])
    y, guess, e = map(np.concatenate, (true, mean, episode))
    how = {"fold": fold_of(e, plan.folds), "kept": values.varying, "seed": seed}
    return score(values.quantity, scale_of(values, plan), y, guess, e, **how)

"""Probes of one quantity: linear and MLP, from a model's features and from every control's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.schema import Source
from lewm.probes.controls import constant_score, shuffled_over_episodes
from lewm.probes.features import Frames
from lewm.probes.linear import fit_linear
from lewm.probes.mlp import fit_mlp
from lewm.probes.scores import score_probe
from lewm.probes.seams import Probe, Rows
from lewm.probes.targets import Quantity, require_spread, usable_rows, values_of

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Observed:
    """Chosen frames of the three parts, and every kind of features of them."""

    frames: dict[str, Frames]
    features: dict[str, dict[str, Float[np.ndarray, "n d"]]]  # by part, then by name


@dataclass(frozen=True)
class Values:
    """A quantity at the usable frames of each part, and how many frames had none."""

    quantity: Quantity
    y: dict[str, Float[np.ndarray, "n c"]]
    usable: dict[str, np.ndarray]

    @property
    def dropped(self) -> dict[str, int]:
        """Frames of each part in which the quantity is NaN or infinite."""
        return {part: int((~usable).sum()) for part, usable in self.usable.items()}


def observe(source: Source, quantity: Quantity, frames: dict[str, Frames]) -> Values:
    """The quantity's values; UserError where they are mostly missing or constant."""
    y, usable = {}, {}
    for part, chosen in frames.items():
        values = values_of(source, quantity, chosen)
        usable[part] = usable_rows(values, quantity, part)
        y[part] = values[usable[part]]
    require_spread(y["train"], quantity)
    return Values(quantity, y, usable)


def rows_of(observed: Observed, values: Values, name: str) -> dict[str, Rows]:
    """Features `name` and the quantity, by part."""
    found = {}
    for part in PARTS:
        usable = values.usable[part]
        x, episode = observed.features[part][name][usable], observed.frames[part].episode[usable]
        found[part] = Rows(x, values.y[part], episode)
    return found


def fit_probes(rows: dict[str, Rows], *, seed: int) -> dict[str, Probe]:
    """The linear and the MLP probe, trained on train, chosen on val."""
    return {
        "linear": fit_linear(rows["train"], rows["val"]),
        "mlp": fit_mlp(rows["train"], rows["val"], seed=seed),
    }


def score_both(rows: dict[str, Rows], components: list[str], *, seed: int) -> tuple[dict[str, Any], dict[str, Probe]]:
    """Scores of both probes on test, and the probes."""
    probes = fit_probes(rows, seed=seed)
    scores = {
        name: score_probe(probe, rows["train"], rows["test"], components=components, seed=seed)
        for name, probe in probes.items()
    }
    return scores, probes


def score_controls(observed: Observed, values: Values, *, seed: int) -> dict[str, Any]:
    """The same probes where there is no training, no network, no relation, no input."""
    components = values.quantity.components
    rows = rows_of(observed, values, "embedding")
    shuffled = {part: shuffled_over_episodes(part_rows, seed=seed) for part, part_rows in rows.items()}
    compared = {
        "untrained": rows_of(observed, values, "untrained/embedding"),
        "pixels": rows_of(observed, values, "pixels"),
        "shuffled": shuffled,
    }
    found = {name: score_both(part_rows, components, seed=seed)[0] for name, part_rows in compared.items()}
    return found | {"constant": constant_score(rows["train"], rows["test"], components=components)}

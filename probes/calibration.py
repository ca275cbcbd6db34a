"""Calibrated surprise: what an ordinary step's error is, by action and motion, and how rare a larger one would be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lewm.errors import UserError

NEAREST = 50  # ordinary steps a step is compared with
FEWEST = 200  # ordinary steps below which nothing is calibrated: the smallest p-value is 1 in so many
FOLDS = 10
SMALL = 1e-6  # of a spread, where all steps are alike
REST = 0.05  # quantile of sizes above 0 below which all are taken for rest


@dataclass(frozen=True)
class Ordinary:
    """Steps at which nothing is wrong: errors of prediction, what was known before each, and the episode of each.

    `known` is the size of the action block (root mean square, standardised) and the motion that the model predicts
    (root mean square of z_hat_{i+1} - z_i). Neither depends on the outcome, so neither can explain away an event.
    """

    error: Float[np.ndarray, "n d"]
    known: Float[np.ndarray, "n 2"]
    episode: Int[np.ndarray, " n"]


class Usual:
    """What errors are usual: by dimension, and for the action size and motion that were known before.

    A score is s = mean_d(e_d^2 / v_d) / m, where v_d is the mean square of dimension d's error over ordinary steps, and
    m the mean of mean_d(e_d^2 / v_d) over the `NEAREST` of them with the most similar action size and motion.
    """

    def __init__(self, error: Float[np.ndarray, "n d"], known: Float[np.ndarray, "n 2"]) -> None:
        from scipy.spatial import cKDTree

        self.mean_square = np.maximum((error.astype(np.float64) ** 2).mean(axis=0), np.finfo(np.float64).tiny)
        # Ratios of sizes, not differences, make steps similar; of those at rest all alike.
        self.floor = np.array([np.quantile(x[x > 0], REST) if (x > 0).any() else 1.0 for x in known.T])
        places = np.log(np.maximum(known, self.floor))
        self.middle, self.spread = places.mean(axis=0), np.maximum(places.std(axis=0), SMALL)
        self.tree = cKDTree((places - self.middle) / self.spread)
        self.levels = self._relative(error)

    def score(self, error: Float[np.ndarray, "*n d"], known: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
        """Squared errors in units of what is usual for such a step; about 1 in the mean."""
        place = (np.log(np.maximum(known.reshape(-1, 2), self.floor)) - self.middle) / self.spread
        _, nearest = self.tree.query(place, k=min(NEAREST, len(self.levels)))
        expected = self.levels[nearest].mean(axis=1).reshape(error.shape[:-1])
        return self._relative(error) / np.maximum(expected, np.finfo(np.float64).tiny)

    def _relative(self, error: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
        return (error.astype(np.float64) ** 2 / self.mean_square).mean(axis=-1)


class Calibration:
    """Compares errors with those at ordinary steps.

    All ordinary steps together say what is usual (see `Usual`). A score's p-value is its rank among the scores that
    ordinary steps get from what is usual in other episodes, (1 + #{s' >= s}) / (1 + n): cross-conformal, in `FOLDS`
    parts of whole episodes (Vovk, Annals of Mathematics and Artificial Intelligence 2015).

    Raises:
        UserError: there are fewer than `FEWEST` ordinary steps, or fewer than 4 episodes.
    """

    def __init__(self, ordinary: Ordinary, *, seed: int = 0) -> None:
        error, known = ordinary.error, ordinary.known
        episodes = np.unique(ordinary.episode)
        if len(episodes) < 4 or len(error) < FEWEST:
            raise UserError(
                f"calibrated surprise needs {FEWEST} ordinary steps of at least 4 validation episodes, there are "
                f"{len(error)} of {len(episodes)}; name more data with --reference PATH"
            )
        self.usual, ranks = Usual(error, known), []
        for fold in np.array_split(np.random.default_rng(seed).permutation(episodes), min(FOLDS, len(episodes))):
            out = np.isin(ordinary.episode, fold)
            ranks.append(Usual(error[~out], known[~out]).score(error[out], known[out]))
        self.ranks = np.sort(np.concatenate(ranks))

    def score(self, error: Float[np.ndarray, "*n d"], known: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
        """Squared errors in units of what is usual for such a step; about 1 in the mean."""
        return self.usual.score(error, known)

    def p_values(self, scores: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """How rare a score as large is at ordinary steps: at best 1 in their number plus 1; NaN stays NaN."""
        at_least = len(self.ranks) - np.searchsorted(self.ranks, scores, side="left")
        return np.where(np.isnan(scores), np.nan, (1 + at_least) / (1 + len(self.ranks)))

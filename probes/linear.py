"""The linear probe: ridge regression in closed form, its strength chosen on validation episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lewm.probes.seams import Rows, Scale

STRENGTHS = tuple(10.0**p for p in range(-3, 6))  # on standardised features, summed over frames


@dataclass(frozen=True)
class LinearProbe:
    """y = x W + b on standardised features and quantities."""

    scale: Scale
    weight: Float[np.ndarray, "d c"]
    bias: Float[np.ndarray, " c"]
    strength: float

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """The quantity, standardised by the training rows."""
        return np.concatenate([block @ self.weight + self.bias for block in self.scale.blocks(x)])


def fit_linear(train: Rows, val: Rows, strengths: tuple[float, ...] = STRENGTHS) -> LinearProbe:
    """The ridge regression on `train` whose strength does best on `val`; of strengths that tie, the smallest.

    Features and targets are standardised, so the unpenalised intercept is their mean: 0.
    """
    scale, target, strengths = Scale.of(train.x), Scale.of(train.y), tuple(sorted(strengths))
    weights = ridge(*moments(train, scale, target), strengths)
    best = int(np.argmin(squared_errors(weights, val, scale, target)))
    return LinearProbe(scale, weights[best], np.zeros(train.y.shape[1]), strengths[best])


def moments(rows: Rows, scale: Scale, target: Scale) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d c"]]:
    """X'X and X'Y of standardised rows."""
    d, c = rows.x.shape[1], rows.y.shape[1]
    xx, xy = np.zeros((d, d)), np.zeros((d, c))
    for x, y in zip(scale.blocks(rows.x), target.blocks(rows.y), strict=True):
        xx += x.T @ x
        xy += x.T @ y
    if not (np.isfinite(xx).all() and np.isfinite(xy).all()):
        raise ValueError(
            "training rows must be finite, but some hold NaN or infinity; drop their frames before fitting"
        )
    return xx, xy


def ridge(
    xx: Float[np.ndarray, "d d"], xy: Float[np.ndarray, "d c"], strengths: tuple[float, ...]
) -> Float[np.ndarray, "s d c"]:
    """Weights of every strength a from one decomposition: with X'X = V L V', W = V (L + a)^-1 V' X'Y.

    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 3.4.1: X = U D V' and L = D^2.
    """
    from scipy.linalg import eigh

    size, axes = eigh(xx)
    size = np.maximum(size, 0)  # rounding takes the zeros of collinear features below 0
    rotated = axes.T @ xy
    return np.stack([axes @ (rotated / (size + a)[:, None]) for a in strengths])


def squared_errors(
    weights: Float[np.ndarray, "s d c"], rows: Rows, scale: Scale, target: Scale
) -> Float[np.ndarray, " s"]:
    """Sum over rows and targets of every strength's squared errors."""
    errors = np.zeros(len(weights))
    side_by_side = np.concatenate(list(weights), axis=1)  # (d, s c): one product with each block
    for x, y in zip(scale.blocks(rows.x), target.blocks(rows.y), strict=True):
        read = (x @ side_by_side).reshape(len(x), len(weights), -1)
        errors += ((read - y[:, None]) ** 2).sum(axis=(0, 2))
    return errors

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
        return self.scale(x) @ self.weight + self.bias


def fit_linear(train: Rows, val: Rows, strengths: tuple[float, ...] = STRENGTHS) -> LinearProbe:
    """The ridge regression on `train` whose strength does best on `val`."""
    from sklearn.linear_model import Ridge

    scale, target = Scale.of(train.x), Scale.of(train.y)
    x, y, x_val, y_val = scale(train.x), target(train.y), scale(val.x), target(val.y)
    best, lowest = None, np.inf
    for strength in strengths:
        ridge = Ridge(alpha=strength, solver="cholesky").fit(x, y)
        error = float(((x_val @ ridge.coef_.reshape(y.shape[1], -1).T + ridge.intercept_ - y_val) ** 2).mean())
        if best is None or error < lowest:
            best, lowest = (ridge, strength), error
    assert best is not None
    ridge, strength = best
    return LinearProbe(scale, ridge.coef_.reshape(y.shape[1], -1).T, np.atleast_1d(ridge.intercept_), strength)

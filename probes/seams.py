"""What a probe needs: of a model, frozen; and of data, rows of one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lewm.clip import Interface


class Model(Protocol):
    """A frozen world model that takes raw frames and actions; `lewm.checkpoint.load` returns one."""

    interface: Interface

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]: ...

    def encode_layers(self, pixels: UInt8[Tensor, "b t h w c"]) -> dict[str, Float[Tensor, "b t _"]]: ...

    def predict(self, z: Float[Tensor, "b t d"], actions: Float[Tensor, "b t k a"]) -> Float[Tensor, "b t d"]: ...

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b t-1 k a"], future: Float[Tensor, "b s n k a"]
    ) -> Float[Tensor, "b s n d"]: ...

    def surprise(
        self, pixels: UInt8[Tensor, "b t h w c"], actions: Float[Tensor, "b t-1 k a"]
    ) -> Float[Tensor, "b t-1"]: ...


Reader = Callable[[Tensor], dict[str, Tensor]]  # uint8 frames (b, h, w, c) to features (b, d) by name


@dataclass(frozen=True)
class Rows:
    """Features and a quantity, one row a frame, with the episode each frame is from."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n c"]
    episode: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation per column; a constant column is only centred."""

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]

    @classmethod
    def of(cls, values: Float[np.ndarray, "n d"]) -> Scale:
        """The scale of these rows."""
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        return cls(mean, np.where(std > 1e-8 * (1 + np.abs(mean)), std, 1.0))

    def __call__(self, values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Standardise rows."""
        return (values - self.mean) / self.std


class Probe(Protocol):
    """A fitted probe: features to the quantity, standardised by the training rows."""

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]: ...

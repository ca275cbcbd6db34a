"""What a probe needs: of a model, frozen; and of data, rows of one part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lewm.clip import Interface

CONSTANT = 1e-10  # share of its size below which what varies is rounding


class Model(Protocol):
    """A frozen world model that takes raw frames and actions; `lewm.checkpoint.load` returns one."""

    interface: Interface

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]: ...

    def encode_layers(
        self, pixels: UInt8[Tensor, "b t h w c"], layers: tuple[str, ...]
    ) -> dict[str, Float[Tensor, "b t _"]]: ...

    def predict(self, z: Float[Tensor, "b t d"], actions: Float[Tensor, "b t k a"]) -> Float[Tensor, "b t d"]: ...

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b t-1 k a"], future: Float[Tensor, "b s n k a"]
    ) -> Float[Tensor, "b s n d"]: ...

    def surprise(
        self, pixels: UInt8[Tensor, "b t h w c"], actions: Float[Tensor, "b t-1 k a"]
    ) -> Float[Tensor, "b t-1"]: ...


class Reader(Protocol):
    """Makes features (b, d) by name of uint8 frames (b, h, w, c); readers of the same key make the same."""

    @property
    def key(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, pixels: UInt8[Tensor, "b h w c"]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Rows:
    """Features and a quantity, one row a frame, with the episode each frame is from."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n c"]
    episode: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation per column; a constant column is only centred."""

    BLOCK: ClassVar[int] = 4096  # rows in float64 at once: 6 MB at a width of 192, which a cache still holds

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]

    @classmethod
    def of(cls, values: Float[np.ndarray, "n d"]) -> Scale:
        """The scale of these rows, in float64 and two passes: the mean, then squared deviations from it."""
        first, one = values[0].astype(np.float64), np.ones(values.shape[1])
        # Deviations from the first row keep the digits of a mean far from 0, and are exactly 0 in a constant column.
        mean = first + sum(block.sum(axis=0) for block in cls(first, one).blocks(values)) / len(values)
        squares = sum(np.einsum("nd,nd->d", block, block) for block in cls(mean, one).blocks(values))
        std = np.sqrt(squares / len(values))
        return cls(mean, np.where(std > CONSTANT * (1 + np.abs(mean)), std, 1.0))

    def __call__(self, values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Standardise rows."""
        centred = values - self.mean
        centred /= self.std
        return centred

    def undo(self, values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Standardised rows back in their own units."""
        return values * self.std + self.mean

    def blocks(self, values: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "_ d"]]:
        """Standardised rows, `BLOCK` at a time, so that no float64 copy of all rows exists; one empty block of none."""
        for low in range(0, max(1, len(values)), self.BLOCK):
            yield self(values[low : low + self.BLOCK])


class Probe(Protocol):
    """A fitted probe: features to the quantity, standardised by the training rows."""

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]: ...

"""Noise that is a pure function of (seed, episode, step, iteration), so that no result depends on the batch.

The generator is numpy's counter-based Philox, keyed by 128 bits of a hash: torch seeds its CPU generator by 32 bits
only, so that some of the many keys of an evaluation would share their noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of one plan of several episodes.

    `episodes` are the keys of the episodes, `step` counts the environment steps executed before. An `iteration` is the
    number of a solver's iteration, or a name for draws beside them; no two draws of a solver may share one.
    """

    seed: int
    episodes: tuple[int | str, ...]
    step: int
    device: torch.device | str = "cpu"

    def white(self, iteration: int | str, *shape: int) -> Float[Tensor, "b ..."]:
        """Independent N(0, 1), float32, of shape (b, *shape)."""
        return self._each(iteration, lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def coloured(
        self, iteration: int | str, s: int, n: int, k: int, a: int, *, exponent: float
    ) -> Float[Tensor, "b s n k a"]:
        """N(0, 1) whose power spectrum over the n * k steps falls as f^-exponent; 0 is white."""
        if exponent == 0:
            return self.white(iteration, s, n, k, a)
        return self._each(
            iteration, lambda rng: np.moveaxis(power_law(rng, (s, a), n * k, exponent), 1, 2).reshape(s, n, k, a)
        )

    def uniform(self, iteration: int | str, *shape: int) -> Float[Tensor, "b ..."]:
        """Uniform in [0, 1), float32, of shape (b, *shape)."""
        return self._each(iteration, lambda rng: rng.random(shape, dtype=np.float32))

    def rows(self, index: Tensor) -> Noise:
        """Of some of the episodes."""
        return replace(self, episodes=tuple(self.episodes[i] for i in index.tolist()))

    def _each(self, iteration: int | str, draw: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        drawn = [draw(self._generator(episode, iteration)) for episode in self.episodes]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def _generator(self, episode: int | str, iteration: int | str) -> np.random.Generator:
        key = blake2b(f"{self.seed}:{episode}:{self.step}:{iteration}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def power_law(rng: np.random.Generator, shape: tuple[int, ...], steps: int, exponent: float) -> np.ndarray:
    """Gaussian noise (*shape, steps), float32, with unit variance at each step and a spectrum of f^-exponent [0].

    The mean over the steps, of frequency 0, gets the power of the lowest frequency, 1 / steps, as usual.

    [0] J. Timmer and M. Koenig, On generating power law noise, Astronomy and Astrophysics 300 (1995).
    """
    f = np.fft.rfftfreq(steps)
    f[0] = 1 / steps
    scale = f ** (-exponent / 2)
    x = rng.standard_normal((2, *shape, len(f)))
    # Frequency 0, and steps / 2 where steps is even, are real: all of their power goes there.
    alone = [0, -1] if steps % 2 == 0 else [0]
    x[1, ..., alone] = 0
    x[0, ..., alone] *= np.sqrt(2)
    # x_t = (1/T) sum over all T frequencies, each of power 2 scale^2; those that are not alone occur twice.
    twice = np.full(len(f), 2.0)
    twice[alone] = 1
    std = np.sqrt((twice * 2 * scale**2).sum()) / steps
    return (np.fft.irfft((x[0] + 1j * x[1]) * scale, n=steps) / std).astype(np.float32)

"""Physical quantities read out of imagined embeddings, by horizon: does what is imagined move as the world does?"""

from __future__ import annotations

from typing import Any

import numpy as np

from lewm.datasets.schema import Source
from lewm.probes.features import Frames
from lewm.probes.open_loop import Imagined
from lewm.probes.quantities import Values
from lewm.probes.scores import score
from lewm.probes.seams import Probe, Scale
from lewm.probes.targets import values_of


def horizon(source: Source, values: Values, probe: Probe, imagined: Imagined, *, seed: int = 0) -> list[dict[str, Any]]:
    """The probe of real embeddings, asked of imagined ones and, as a control, of the context's last one.

    Both are held against the quantity in the row that lies `h` blocks ahead, standardised as for the probe itself.
    """
    guesses = [probe.predict(imagined.ahead[:, h]) for h in range(imagined.windows.blocks)]
    copied = probe.predict(imagined.last)
    return [row_of(source, values, imagined, h, guess, copied, seed) for h, guess in enumerate(guesses, 1)]


def row_of(
    source: Source, values: Values, imagined: Imagined, h: int, guess: np.ndarray, copied: np.ndarray, seed: int
) -> dict[str, Any]:
    """One horizon: r and MSE of `guess` with intervals over episodes, and r of `copied`."""
    quantity, episode = values.quantity, imagined.windows.episode
    true = Scale.of(values.y["train"])(values_of(source, quantity, Frames(episode, imagined.rows(h), 0)))
    usable = np.isfinite(true).all(axis=1)
    found: dict[str, Any] = {"h": h, "n": int(usable.sum()), "episodes": len(np.unique(episode[usable]))}
    if not usable.any():
        return found | {"r": None, "mse": None, "copy_last_r": None}
    about = {"components": quantity.components, "seed": seed}
    read, last = (score(true[usable], x[usable], episode[usable], **about) for x in (guess, copied))
    kept = {name: read[name] for name in ("r", "r_ci95", "mse", "mse_ci95")}
    return found | kept | {"copy_last_r": last["r"], "copy_last_mse": last["mse"]}

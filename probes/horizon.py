"""Physical quantities read out of imagined embeddings, by horizon: does what is imagined move as the world does?"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.schema import Source
from lewm.probes.frames import Frames
from lewm.probes.open_loop import PATHS, Imagined
from lewm.probes.quantities import Reading
from lewm.probes.targets import values_of

KEPT = ("r", "r_ci95", "mse", "mse_ci95", "error", "error_ci95", "ci_reliable")


def horizon(source: Source, reading: Reading, imagined: Imagined, *, seed: int = 0) -> list[dict[str, Any]]:
    """The probe of real embeddings, asked of imagined ones 1..n blocks ahead.

    Each is held against the quantity in the row that lies `h` blocks ahead, scored as the probe itself is. Beside it,
    with a prefix: `encoded`, the probe on the real frame of that row, the least error one can hope for; `copy_last`,
    the context's last real embedding; `zero_action` and `shuffled_action`, imagined with no actions and with those of
    another window: a model that listens to its actions is far better than these. None where the window has fewer frames
    up to there than the probe sees.
    """
    return [row_of(source, reading, imagined, h, seed) for h in range(1, imagined.windows.blocks + 1)]


def row_of(source: Source, reading: Reading, imagined: Imagined, h: int, seed: int) -> dict[str, Any]:
    """One horizon."""
    values, episode = reading.values, imagined.windows.episode
    true = values_of(source, values.quantity, Frames(episode, imagined.rows(h), 0), imagined.frameskip)
    usable = np.isfinite(true).all(axis=1)
    if imagined.windows.context + h < values.num_frames:  # the probe sees more frames than there are
        usable[:] = False
    found: dict[str, Any] = {"h": h, "n": int(usable.sum()), "episodes": len(np.unique(episode[usable]))}
    for name in PATHS:
        prefix = "" if name == "imagined" else f"{name}_"
        if not usable.any():
            found |= {f"{prefix}{key}": None for key in KEPT}
            continue
        read = reading.of(seen_by(imagined, name, h, values.num_frames), episode)
        scores = reading.score_of(true[usable], read[usable], episode[usable], seed=seed)
        found |= {f"{prefix}{key}": scores[key] for key in KEPT}
    return found


def seen_by(imagined: Imagined, name: str, h: int, num_frames: int) -> Float[np.ndarray, "w _"]:
    """Embeddings of the frame `h` blocks ahead and of those before it, as the probe was fitted on them."""
    last = imagined.windows.context + h
    return imagined.path(name)[:, last - num_frames : last].reshape(len(imagined.real), -1)

"""Learning rate over the optimiser steps of the whole run."""

from __future__ import annotations

import math


def lr_factor(step: int, *, total: int, warmup: int) -> float:
    """Factor on the learning rate for optimiser step `step` (from 0): linear from 0, then cosine to 0 at `total`."""
    if step < warmup:
        return step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))

"""The shape of the latent space: how many directions the embeddings fill, and how evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float


def describe_latent(z: Float[np.ndarray, "n d"]) -> dict[str, Any]:
    """Effective rank, standard deviations and the covariance's eigenvalues, largest first.

    The effective rank is exp(entropy of the normalised singular values) of the centred embeddings, 1..d [0].

    [0] O. Roy and M. Vetterli, The effective rank, EUSIPCO 2007.
    """
    centred = z.astype(np.float64) - z.mean(axis=0, dtype=np.float64)
    spectrum = np.clip(np.linalg.eigvalsh(centred.T @ centred / len(z))[::-1], 0, None)
    share = np.sqrt(spectrum)
    share = share[share > 0] / max(share.sum(), 1e-300)
    std = centred.std(axis=0)
    return {
        "n": len(z),
        "dim": z.shape[1],
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())),
        "std_min": float(std.min()),
        "std_mean": float(std.mean()),
        "std_max": float(std.max()),
        "spectrum": spectrum.tolist(),
    }

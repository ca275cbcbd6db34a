"""Embeddings on a plane: principal components, and t-SNE, which keeps neighbours together and no distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lewm.datasets.schema import Source
from lewm.errors import UserError
from lewm.probes import kinds
from lewm.probes.frames import Frames
from lewm.probes.targets import Quantity, load_quantities, values_of

MAPPED = 1500  # frames on a map: t-SNE of them takes seconds
PERPLEXITY = 30.0
NEAR = 12  # neighbours by which a map's trustworthiness is measured
MOST = 5  # rows of panels


@dataclass(frozen=True)
class Colour:
    """A number at each frame; NaN where it is not known. Angles, in degrees, come round again."""

    name: str
    values: Float[np.ndarray, " n"]
    cyclic: bool = False


def principal(z: Float[np.ndarray, "n d"], seed: int) -> tuple[Float[np.ndarray, "n 2"], list[float]]:
    """The first two principal components, and the share of the variance along each."""
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full", random_state=seed)
    return pca.fit_transform(z.astype(np.float64)), pca.explained_variance_ratio_.tolist()


def neighbours_kept(z: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    """t-SNE [0], started from the principal components.

    [0] L. van der Maaten and G. Hinton, Visualizing data using t-SNE, JMLR 2008.
    """
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(z.astype(np.float32))


def mapped(z: Float[np.ndarray, "n d"], seed: int) -> tuple[dict[str, Float[np.ndarray, "n 2"]], dict[str, Any]]:
    """Both maps by name, and what results say of them.

    Trustworthiness is 1 where whatever lies near each other on the map is so in the latent space, and about 0.5 where
    the map is random [0].

    [0] J. Venna and S. Kaski, Neighborhood preservation in nonlinear projection methods, ICANN 2001.
    """
    from sklearn.manifold import trustworthiness

    pca, share = principal(z, seed)
    maps = {"PCA": pca, "t-SNE": neighbours_kept(z, seed)}
    near = min(NEAR, (len(z) - 1) // 2)
    trust = {name: float(trustworthiness(z, points, n_neighbors=near)) for name, points in maps.items()}
    return maps, {"n": len(z), "pca_variance": share, "trustworthiness": trust, "neighbours": near}


def colours(
    source: Source, quantities: list[Quantity], frames: Frames, *, history: int, frameskip: int
) -> list[Colour]:
    """What frames are coloured by: numbers of the quantities that one frame tells; without any, the time."""
    found = []
    for quantity in quantities:
        if quantity.num_frames(history) == 1 and quantity.kind in ("vector", "angle"):
            found += components(quantity, values_of(source, quantity, frames, frameskip))
    return found[:MOST] or [Colour("row in its episode", frames.row.astype(np.float64))]


def components(quantity: Quantity, values: Float[np.ndarray, "n c"]) -> list[Colour]:
    """The numbers of a vector, or the angle itself."""
    if quantity.kind == "angle":
        degrees = np.degrees(kinds.angles_of(values))
        return [Colour(f"{quantity.name} (degrees)", column, cyclic=True) for column in degrees.T]
    names = list("xyz") if quantity.image is not None and values.shape[1] in (2, 3) else quantity.components
    return [Colour(f"{quantity.name}, {name}", column) for name, column in zip(names, values.T, strict=False)]


def quantities_of(targets: str | None, source: Source) -> tuple[str | None, list[Quantity]]:
    """The quantities to colour by; without a wish and where none fits, none."""
    try:
        return load_quantities(targets, source)
    except UserError:
        if targets is not None:
            raise
        return None, []

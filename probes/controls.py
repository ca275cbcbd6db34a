"""What a probe must be compared with: no training, no network, no relation, no input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lewm.datasets.schema import Source
from lewm.probes.features import device_of
from lewm.probes.frames import Frames, few, read_frames
from lewm.probes.seams import Rows

SIDE = 32  # pixels of a frame that the pixel control sees, at most
FITTED = 2000  # training frames for the principal components
CALIBRATED = 512  # frames for BatchNorm

M = TypeVar("M", bound=nn.Module)


def calibration_frames(source: Source, train: Frames) -> UInt8[Tensor, "n h w c"]:
    """Frames that `calibrated` needs, spread over the training frames."""
    return torch.from_numpy(read_frames(source, few(train, CALIBRATED)))


def small_pixels(pixels: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b d"]:
    """Frames averaged down to `SIDE` x `SIDE` where they are larger, in 0..1, as vectors."""
    x = rearrange(pixels.float() / 255, "b h w c -> b c h w")
    side = (min(SIDE, x.shape[-2]), min(SIDE, x.shape[-1]))
    return F.interpolate(x, size=side, mode="area").flatten(1)


@dataclass(frozen=True)
class PixelReader:
    """Principal components of raw pixels, found on training frames."""

    mean: Float[np.ndarray, " p"]
    components: Float[np.ndarray, "d p"]

    @classmethod
    def fit(cls, source: Source, train: Frames, width: int, *, seed: int = 0) -> PixelReader:
        """The first `width` components of at most `FITTED` training frames."""
        from sklearn.decomposition import PCA

        x = small_pixels(torch.from_numpy(read_frames(source, few(train, FITTED)))).numpy()
        pca = PCA(min(width, *x.shape), svd_solver="randomized", random_state=seed).fit(x)
        return cls(pca.mean_, pca.components_)

    @property
    def key(self) -> str:
        """Equal for the same components."""
        return "pixels|" + hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()

    names = ("pixels",)

    def __call__(self, pixels: UInt8[Tensor, "b h w c"]) -> dict[str, Tensor]:
        return {"pixels": torch.from_numpy((small_pixels(pixels).numpy() - self.mean) @ self.components.T)}


def calibrated(model: M, pixels: UInt8[Tensor, "n h w c"]) -> M:
    """Give an untrained model the BatchNorm statistics of these frames, in place: of its embeddings and predictions.

    With the statistics that BatchNorm starts from, the control would be worse than an untrained network need be: a
    prediction of another scale than the embedding is a constant error that hides every event.
    """
    if len(pixels) < 2:
        return model  # no spread to learn
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    with torch.inference_mode():
        for batch in pixels.tensor_split(-(-len(pixels) // 256)):  # equal parts: BatchNorm refuses a single frame
            z = model.encode(batch[:, None].to(device_of(model)))  # type: ignore[operator, arg-type]
            if hasattr(model, "predict"):
                model.predict(z, no_actions(model, z))  # type: ignore[operator]
    return model.eval()


def no_actions(model: Any, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t k a"]:
    """A block of zero actions, in the environment's units, after each frame."""
    return z.new_zeros(*z.shape[:2], model.interface.frameskip, model.interface.action_dim, dtype=torch.float32)


def shuffled_over_episodes(rows: Rows, *, seed: int = 0) -> Rows:
    """Each episode's quantities replaced by another's, repeated or cut to its length; time within an episode stays.

    A derangement: no episode keeps its own. A single episode is turned by half its length instead.
    """
    episodes = np.unique(rows.episode)
    order = np.random.default_rng(seed).permutation(episodes)
    donors = dict(zip(order, np.roll(order, 1), strict=True))
    y = np.empty_like(rows.y)
    for e in episodes:
        at, theirs = rows.episode == e, rows.y[rows.episode == donors[e]]
        turned = theirs if len(episodes) > 1 else np.roll(theirs, len(theirs) // 2, axis=0)
        y[at] = np.resize(turned, (int(at.sum()), rows.y.shape[1]))
    return Rows(rows.x, y, rows.episode)

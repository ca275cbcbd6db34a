"""The contract between data and model: what a batch of clips holds, and what a model must be fed with.

Shape letters used everywhere: `b` batch, `t` frames, `c h w` image, `d` embedding, `a` action, `k` frameskip,
`s` candidates, `n` blocks ahead, `m` SIGReg directions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ClipBatch(NamedTuple):
    """Clips as they leave the loader: raw frames, raw actions, nothing normalised."""

    pixels: UInt8[Tensor, "b t h w c"]
    actions: Float32[Tensor, "b t-1 k a"]  # block i leads from frame i to frame i + 1; the environment's own units
    index: Int64[Tensor, "b"]  # number of the clip in its split's canonical order
    weight: Float32[Tensor, "b"]  # 1, or 0 where a clip only pads the last batch of an evaluation


@dataclass(frozen=True, kw_only=True)
class Interface:
    """All that must be known to feed a model; it travels inside every checkpoint.

    `image_size` is the side of the square frames that the encoder sees; frames of another size are refused unless
    `resize` is set. `action_mean` and `action_std` are per dimension, from the training split only.
    """

    image_size: int
    frameskip: int
    history: int
    action_mean: tuple[float, ...]
    action_std: tuple[float, ...]
    action_names: tuple[str, ...] = ()
    channels: int = 3
    resize: bool = False
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = IMAGENET_STD
    fingerprint: str = ""  # of the data the model was trained on
    split_seed: int = 0

    @property
    def action_dim(self) -> int:
        """Size of one step's action."""
        return len(self.action_mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for a checkpoint or JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Interface:
        """The inverse of `to_dict`."""
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)

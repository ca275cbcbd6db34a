"""Embeddings of clips, and errors of prediction at rollout depths 1..n: a slow violation shows late."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lewm.probes.seams import Model


def embed_once(model: Model, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]:
    """Embeddings of clips that share frames: each different frame is encoded once."""
    frames = rearrange(pixels, "b t h w c -> (b t) h w c")
    first: dict[bytes, int] = {}
    place = [first.setdefault(frame.tobytes(), len(first)) for frame in frames.cpu().numpy()]
    different = [place.index(i) for i in range(len(first))]
    z = model.encode(frames[different][None])[0].float()
    return rearrange(z[place], "(b t) d -> b t d", b=len(pixels))


def open_loop_errors(
    model: Model, z: Float[Tensor, "b t d"], actions: Float[Tensor, "b t-1 k a"], depth: int
) -> Float[Tensor, "b n i d"]:
    """e[:, n-1, i] = z_hat_{i+1|i+1-n} - z_{i+1}: frame i + 1 as predicted n blocks before, less what came.

    i = 0..t-2; the frames seen are those up to i + 1 - n, at most `history` of them, and depth 1 is the model's own
    one-step prediction. NaN where a clip has no frame so early.
    """
    history, steps = model.interface.history, z.shape[1] - 1
    errors = z.new_full((len(z), depth, steps, z.shape[2]), torch.nan)
    for last in range(steps):  # the last frame that is seen
        first, ahead = max(0, last + 1 - history), min(depth, steps - last)
        future = actions[:, None, last : last + ahead]
        path = model.rollout(z[:, first : last + 1], actions[:, first:last], future)[:, 0]
        n = torch.arange(ahead)
        errors[:, n, last + n] = path - z[:, last + 1 : last + 1 + ahead]
    return errors


def known_before(
    model: Model,
    z: Float[Tensor, "b t d"],
    actions: Float[Tensor, "b t-1 k a"],
    errors: Float[Tensor, "b n i d"],
) -> Float[Tensor, "b n i 2"]:
    """Of each prediction, what was known when it was made: size of its actions, and motion it expects.

    Both are root mean squares: over the blocks' standardised numbers; over z_hat_{i+1|i+1-n} - z_{i+1-n}.
    """
    mean, std = (torch.tensor(x, device=z.device) for x in (model.interface.action_mean, model.interface.action_std))
    square = ((actions - mean) / std).square().mean(dim=(2, 3))
    known = z.new_full((*errors.shape[:3], 2), torch.nan)
    for n in range(1, min(errors.shape[1], z.shape[1] - 1) + 1):
        known[:, n - 1, n - 1 :, 0] = square.unfold(1, n, 1).mean(-1).sqrt()
        expected = errors[:, n - 1, n - 1 :] + z[:, n:] - z[:, : z.shape[1] - n]
        known[:, n - 1, n - 1 :, 1] = expected.square().mean(-1).sqrt()
    return known

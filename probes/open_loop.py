"""Open-loop error: how far imagined embeddings drift from real ones, by horizon, beside what costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8

from lewm.datasets.schema import Source
from lewm.datasets.windows import action_blocks, clip_rows, frame_rows, num_starts
from lewm.errors import UserError
from lewm.probes.features import device_of
from lewm.probes.seams import Model
from lewm.probes.statistics import mean_interval
from lewm.progress import track

BATCH = 16
BLOCKS = 8  # the farthest horizon, where the episodes are long enough
MAX_WINDOWS = 400
ERRORS = ("mse", "copy_last_mse", "zero_action_mse", "shuffled_action_mse")
ACTIONS = ("imagined", "zero_action", "shuffled_action")  # the true ones, none, another window's
PATHS = ("imagined", "encoded", "copy_last", "zero_action", "shuffled_action")


@dataclass(frozen=True)
class Windows:
    """Where windows of `context + blocks` frames start, by episode number and row."""

    episode: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    context: int
    blocks: int

    @property
    def num_frames(self) -> int:
        """Frames of one window."""
        return self.context + self.blocks


@dataclass(frozen=True)
class Imagined:
    """What a model imagined in its windows, and what came."""

    windows: Windows
    frameskip: int
    real: Float[np.ndarray, "w t d"]  # embeddings of every frame, t = context + n
    ahead: dict[str, Float[np.ndarray, "w n d"]]  # imagined, by which actions it was given (`ACTIONS`)

    @property
    def errors(self) -> Float[np.ndarray, "4 w n"]:
        """Mean square error over dimensions, in the order of `ERRORS`."""
        true, last = self.real[:, self.windows.context :], self.real[:, self.windows.context - 1, None]
        guesses = [self.ahead["imagined"], last, self.ahead["zero_action"], self.ahead["shuffled_action"]]
        return np.stack([np.square(guess - true, dtype=np.float64).mean(axis=-1) for guess in guesses])

    def path(self, name: str) -> Float[np.ndarray, "w t d"]:
        """The context's real embeddings and then what is said to follow: one of `PATHS`."""
        context, blocks = self.real[:, : self.windows.context], self.windows.blocks
        if name == "encoded":
            return self.real
        if name == "copy_last":
            return np.concatenate([context, np.repeat(context[:, -1:], blocks, axis=1)], axis=1)
        return np.concatenate([context, self.ahead[name]], axis=1)

    def rows(self, h: int) -> Int[np.ndarray, " w"]:
        """The row that lies `h` blocks after each window's context."""
        return self.windows.start + (self.windows.context - 1 + h) * self.frameskip


def farthest(lengths: Int[np.ndarray, " e"], context: int, frameskip: int, blocks: int = BLOCKS) -> int:
    """The farthest horizon, up to `blocks`, that fits at least half of the episodes that horizon 1 fits; 0 if none."""
    fitting = [int((num_starts(lengths, context + n, frameskip) > 0).sum()) for n in range(1, blocks + 1)]
    return max((n for n, count in enumerate(fitting, 1) if count > 0 and 2 * count >= fitting[0]), default=0)


def choose_windows(
    lengths: Int[np.ndarray, " e"],
    episodes: Int[np.ndarray, " m"],
    *,
    context: int,
    frameskip: int,
    blocks: int = BLOCKS,
    max_windows: int = MAX_WINDOWS,
) -> Windows:
    """The same number of windows from every episode that is long enough, at even distances; fewer where fewer fit."""
    blocks = farthest(lengths[episodes], context, frameskip, blocks)
    if blocks == 0:
        raise UserError(
            f"no open-loop window fits: a context of {context} frames and one block need "
            f"{clip_rows(context + 1, frameskip)} rows, the longest episode here has {int(lengths[episodes].max())}"
        )
    starts = num_starts(lengths[episodes], context + blocks, frameskip)
    fit = np.flatnonzero(starts)
    # More episodes than windows: evenly strided episodes, one window each.
    fit = fit[np.arange(min(len(fit), max_windows)) * len(fit) // min(len(fit), max_windows)]
    each = max(1, max_windows // len(fit))
    chosen = [(episodes[e], s) for e in fit for s in np.unique(np.linspace(0, starts[e] - 1, each).round().astype(int))]
    episode, start = np.array(chosen, dtype=np.int64).T
    return Windows(episode, start, context, blocks)


def read_windows(
    source: Source, windows: Windows, chosen: Int[np.ndarray, " b"], frameskip: int
) -> UInt8[torch.Tensor, "b t h w c"]:
    """Frames of the chosen windows."""
    rows = [frame_rows(int(windows.start[i]), windows.num_frames, frameskip) for i in chosen]
    return torch.from_numpy(
        np.stack([source.frames(int(windows.episode[i]), r) for i, r in zip(chosen, rows, strict=True)])
    )


def read_actions(source: Source, windows: Windows, frameskip: int) -> Float32[torch.Tensor, "w i k a"]:
    """Action blocks between the frames of all windows."""
    blocks = [
        action_blocks(source.actions(int(e)), int(s), windows.num_frames, frameskip)
        for e, s in zip(windows.episode, windows.start, strict=True)
    ]
    return torch.from_numpy(np.stack(blocks))


def others(episode: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each window the number of another, of another episode wherever there are two or more."""
    # Windows are sorted by episode, so a turn by the largest episode's count leaves no window in its own episode
    # unless that episode has more than half of them.
    counts = np.unique(episode, return_counts=True)[1]
    return np.roll(np.arange(len(episode)), int(counts.max()) % len(episode) or len(episode) // 2)


@torch.inference_mode()
def imagine(model: Model, source: Source, episodes: Int[np.ndarray, " m"], max_windows: int = MAX_WINDOWS) -> Imagined:
    """Roll out windows of these episodes; the context is `history` real frames."""
    frameskip, context = model.interface.frameskip, model.interface.history
    windows = choose_windows(source.lengths, episodes, context=context, frameskip=frameskip, max_windows=max_windows)
    actions = read_actions(source, windows, frameskip)
    futures = actions[:, context - 1 :]
    # futures: (windows, s = 3, n, k, a): the true actions, none (zero in the environment's units), another window's
    futures = torch.stack([futures, torch.zeros_like(futures), futures[others(windows.episode)]], dim=1)
    device, real, ahead = device_of(model), [], []
    for low in track(range(0, len(actions), BATCH), "open loop"):
        chosen = np.arange(low, min(low + BATCH, len(actions)))
        z = model.encode(read_windows(source, windows, chosen, frameskip).to(device)).float()
        past = actions[chosen, : context - 1].to(device)
        ahead.append(model.rollout(z[:, :context], past, futures[chosen].to(device)).float().cpu().numpy())
        real.append(z.cpu().numpy())
    found = np.concatenate(ahead)  # (w, s, n, d)
    return Imagined(windows, frameskip, np.concatenate(real), dict(zip(ACTIONS, found.swapaxes(0, 1), strict=True)))


def imagine_or_why_not(
    model: Model, source: Source, episodes: Int[np.ndarray, " m"], max_windows: int = MAX_WINDOWS
) -> tuple[Imagined | None, str | None]:
    """Rollouts on these episodes, or none and the reason where they are too short."""
    try:
        return imagine(model, source, episodes, max_windows), None
    except UserError as error:
        return None, str(error)


def open_loop(imagined: Imagined, *, seed: int = 0) -> list[dict[str, Any]]:
    """Latent error at horizons 1..n blocks, beside copy-last, zeroed actions and another window's actions.

    The error is the mean square over dimensions, averaged over windows, with a 95 % interval over episodes. Every
    horizon is judged on the same windows.
    """
    windows, errors = imagined.windows, imagined.errors
    return [summarise(errors[:, :, h], windows.episode, h + 1, seed) for h in range(windows.blocks)]


def summarise(errors: np.ndarray, episode: Int[np.ndarray, " w"], h: int, seed: int) -> dict[str, Any]:
    """One horizon: the mean of each error (4, windows) with its interval over episodes."""
    found: dict[str, Any] = {"h": h}
    if len(episode) == 1:  # a single window has no other whose actions it could be given
        errors = np.where(np.array(ERRORS)[:, None] == "shuffled_action_mse", np.nan, errors)
    for name, values in zip(ERRORS, errors, strict=True):
        interval = mean_interval(values, episode, seed=seed, least=0.0)
        found |= {name: float(values.mean()), f"{name}_ci95": interval.bounds}
        found.setdefault("ci_method", interval.method)
    for name in ("copy_last", "zero_action", "shuffled_action"):
        found[f"{name}_ratio"] = found[f"{name}_mse"] / found["mse"] if found["mse"] > 0 else float("nan")
    return found | {"n": len(episode), "episodes": len(np.unique(episode))}

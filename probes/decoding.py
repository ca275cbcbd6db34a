"""How well frames are made from embeddings that the decoder has not seen, real and imagined, beside controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from lewm.datasets.schema import Source
from lewm.datasets.windows import frame_rows
from lewm.probes.decoder import Decoder, Pictures, frame_errors
from lewm.probes.nearest import Neighbours
from lewm.probes.open_loop import PATHS, Imagined, read_windows
from lewm.probes.statistics import FEW, mean_interval

Errors = Float[np.ndarray, " n"]  # of each frame: mean squared difference of pixels in units of their range
SHOWN_PATHS = PATHS[:3]  # imagined, encoded, copy_last


def score(errors: Errors, of_mean: Errors, episode: Int[np.ndarray, " n"], *, seed: int) -> dict[str, Any]:
    """Mean error with an interval over episodes, PSNR = -10 log10(MSE), and R2 = 1 - MSE / MSE of the mean frame."""
    mse, worst = float(errors.mean()), float(of_mean.mean())
    interval = mean_interval(errors, episode, seed=seed, least=0.0)
    return {
        "mse": mse,
        "mse_ci95": interval.bounds,
        "ci_method": interval.method,
        "psnr": -10 * float(np.log10(mse)) if mse > 0 else float("inf"),
        "r2": 1 - mse / worst if worst > 0 else float("nan"),
    }


def judge(
    shown: dict[str, UInt8[np.ndarray, "n h w c"]], test: Pictures, mean: UInt8[np.ndarray, "h w c"], *, seed: int
) -> dict[str, Any]:
    """Scores of what each way (`decoder` first, then controls) makes of the test frames, and of the mean frame.

    `behind` of a control is the mean over frames of its error less the decoder's, with its interval.
    """
    ways = shown | {"mean_image": np.broadcast_to(mean, test.pixels.shape)}
    errors = {name: frame_errors(frames, test.pixels) for name, frames in ways.items()}
    about = {"of_mean": errors["mean_image"], "episode": test.episode, "seed": seed}
    controls = {name: score(e, **about) for name, e in errors.items() if name != "decoder"}
    for name, scores in controls.items():
        behind = errors[name] - errors["decoder"]
        interval = mean_interval(behind, test.episode, seed=seed)
        scores |= {"behind": float(behind.mean()), "behind_ci95": interval.bounds}
    episodes = len(np.unique(test.episode))
    counts = {"n": len(test.episode), "episodes": episodes, "ci_reliable": episodes >= FEW}
    return score(errors["decoder"], **about) | counts | {"controls": controls}


def decoded_ahead(source: Source, imagined: Imagined, decoder: Decoder, *, seed: int) -> list[dict[str, Any]]:
    """Error of frames decoded h blocks ahead: of imagined embeddings, real ones (the floor), and the last one kept."""
    windows = imagined.windows
    true = true_frames(source, imagined)
    found: list[dict[str, Any]] = [
        {"h": h, "n": len(windows.start), "episodes": len(np.unique(windows.episode))}
        for h in range(1, windows.blocks + 1)
    ]
    for path in SHOWN_PATHS:
        z = imagined.path(path)
        for row in found:
            t = windows.context - 1 + row["h"]
            errors = frame_errors(decoder.frames(z[:, t]), true[:, t])
            interval = mean_interval(errors, windows.episode, seed=seed, least=0.0)
            row |= {f"{path}_mse": float(errors.mean()), f"{path}_mse_ci95": interval.bounds}
    return found


def true_frames(source: Source, imagined: Imagined) -> UInt8[np.ndarray, "w t h w c"]:
    """The real frames of all windows."""
    every = np.arange(len(imagined.windows.start))
    return read_windows(source, imagined.windows, every, imagined.frameskip).numpy()


@dataclass(frozen=True)
class Dream:
    """One open-loop rollout as frames: the context is real, what follows is imagined from actions alone.

    Args:
        title: which episode and row it starts at.
        context: frames of the context; in `imagined` and `nearest` they are those of its real embeddings.
        true: what happened.
        encoded: decoded from the embedding of each real frame: the best the decoder can do.
        imagined: decoded from imagined embeddings.
        nearest: the training frame whose embedding is nearest to the imagined one.
    """

    title: str
    context: int
    true: UInt8[np.ndarray, "t h w c"]
    encoded: UInt8[np.ndarray, "t h w c"]
    imagined: UInt8[np.ndarray, "t h w c"]
    nearest: UInt8[np.ndarray, "t h w c"]

    @property
    def rows(self) -> dict[str, UInt8[np.ndarray, "t h w c"]]:
        """Frames by what they are, in the order in which they are shown."""
        return {
            "what happened": self.true,
            "decoded, real": self.encoded,
            "decoded, imagined": self.imagined,
            "nearest, imagined": self.nearest,
        }


def dreams(source: Source, imagined: Imagined, decoder: Decoder, neighbours: Neighbours, num: int) -> list[Dream]:
    """`num` of the windows, at even distances, as frames."""
    windows, found = imagined.windows, []
    num = min(num, len(windows.start))
    for w in np.arange(num) * len(windows.start) // max(num, 1):
        episode, start = int(windows.episode[w]), int(windows.start[w])
        z, ahead = imagined.path("encoded")[w], imagined.path("imagined")[w]
        found.append(
            Dream(
                f"episode {source.keys[episode]}, from row {start}",
                windows.context,
                source.frames(episode, frame_rows(start, windows.num_frames, imagined.frameskip)),
                decoder.frames(z),
                decoder.frames(ahead),
                neighbours.frames(ahead),
            )
        )
    return found

"""A video with the model's surprise running along under its picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from lewm import checkpoint as checkpoints
from lewm.datasets.video import actions_between, frames_of, read_actions, require_av, write_video
from lewm.datasets.windows import action_blocks
from lewm.errors import UserError
from lewm.paths import make_folder
from lewm.probes.features import device_of
from lewm.probes.ordinary import find_calibrations
from lewm.probes.plots import BLUE, GREY, RED, new_figure, proxy, styled
from lewm.probes.results import out_folder, write_text
from lewm.probes.setting import check_fits, prepare
from lewm.probes.surprise import ALARM, ModelScorer, allow_resize
from lewm.progress import track

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Surprises = Float[np.ndarray, " i"]


class Judged(NamedTuple):
    """Each step's surprise, and how rare it is, where that is known."""

    surprise: Surprises
    p: Surprises | None


Judge = Callable[[Tensor, Tensor], Judged]  # of frames (1, t, h, w, c) and actions (1, t-1, k, a)
ORDINARY_FRAMES = 12  # of the clips whose steps say what is ordinary
SIDE = 384  # pixels; what is smaller is enlarged to at least that
STRIP = 176  # pixels, height of the curve's panel
DPI = 100
PALE = 0.28  # opacity of what is still to come
BORDER = "#9CA3AF"
RADIUS = 5.0  # of the marker, in pixels


def watch(
    checkpoint: str | Path,
    *,
    video: str | Path,
    actions: str | Path,
    out: str | Path | None = None,
    reference: str = "auto",
    resize: bool = False,
    fps: float = 10.0,
    seed: int = 0,
) -> Path:
    """Write a video with its surprise beneath, steps of p at most `ALARM` ringed, and surprise.csv; returns its path.

    `reference` names the data whose validation episodes say what is ordinary, as for `surprise`; without, no p-values.
    """
    require_av()  # before anything takes time
    path = checkpoints.resolve(checkpoint)
    setting = prepare(path, out_folder(out, [path], "watch"), seed)
    if resize:
        allow_resize(setting.model)
    calibrations, _ = find_calibrations(setting, reference, None, ORDINARY_FRAMES, depth=1)
    scorer = ModelScorer(setting.model, 1, calibrations)

    def judge(pixels: Tensor, blocks: Tensor) -> Judged:
        found = {name: values[0].double().cpu().numpy() for name, values in scorer(pixels, blocks).items()}
        rare = None if calibrations is None else calibrations[0].p_values(found["calibrated"])
        return Judged(found["model"], rare)

    return watch_with(setting.model, judge, video=video, actions=actions, out=setting.out, fps=fps)


def watch_with(
    model: Any, judge: Judge, *, video: str | Path, actions: str | Path, out: str | Path, fps: float = 10.0
) -> Path:
    """The same with a model at hand, fed with what its interface says, and any judge of its steps."""
    require_av()
    video, actions, folder = Path(video), Path(actions), make_folder(out)
    target = folder / "watch.mp4"
    if target.resolve() == video.resolve():
        raise UserError(f"{video} would be overwritten; choose another --out")
    frames, num_frames, blocks = read_clip(video, actions, model.interface.frameskip)
    check_fits(frames.shape[1:], blocks.shape[-1], model.interface, video)
    surprise, p = judged(judge, frames, blocks, device_of(model))
    # Step i is known once its frame is seen, the one of row (i + 1) k.
    rows = model.interface.frameskip * np.arange(1, len(surprise) + 1)
    shown = composed(track(frames_of(video), "writing the video", num_frames), rows, surprise, p, num_frames)
    write_video(shown, target, fps)
    write_table(folder / "surprise.csv", rows, surprise, p)
    return target


def read_clip(
    video: Path, actions: Path, frameskip: int
) -> tuple[UInt8[np.ndarray, "t h w 3"], int, Float32[np.ndarray, "t-1 k a"]]:
    """Every `frameskip`-th frame, how many there are of all, and the blocks of actions between those kept."""
    kept, num_frames = [], 0
    for frame in frames_of(video):
        if num_frames % frameskip == 0:
            kept.append(frame)
        num_frames += 1
    if len(kept) < 2:
        raise UserError(f"{video} has {num_frames} frames, too few for frameskip {frameskip}")
    rows = actions_between(read_actions(actions), num_frames, actions)
    return np.stack(kept), num_frames, action_blocks(rows, 0, len(kept), frameskip)


@torch.inference_mode()
def judged(
    judge: Judge, frames: UInt8[np.ndarray, "t h w 3"], blocks: Float32[np.ndarray, "t-1 k a"], device: torch.device
) -> Judged:
    """What a judge says of each step of one clip; UserError where it is not finite."""
    pixels, actions = (torch.from_numpy(array)[None].to(device) for array in (frames, blocks))
    found = judge(pixels, actions)
    assert found.surprise.shape == (len(blocks),), found.surprise.shape
    if not np.isfinite(found.surprise).all():
        raise UserError("the surprise is NaN or infinite: a diverged model; use an earlier checkpoint")
    return found


def write_table(path: Path, rows: Int[np.ndarray, " i"], surprise: Surprises, p: Surprises | None) -> None:
    """A line for each step: the frame in which it ends, its surprise, and its p-value where there is one."""
    names, columns = ["step", "frame", "surprise"], [np.arange(len(rows)), rows, surprise]
    if p is not None:
        names, columns = [*names, "p_value"], [*columns, p]
    table = io.StringIO()
    csv.writer(table).writerows([names, *zip(*(column.tolist() for column in columns), strict=True)])
    write_text(path, table.getvalue())


# Drawing


def composed(
    frames: Iterator[np.ndarray],
    rows: Int[np.ndarray, " i"],
    surprise: Surprises,
    p: Surprises | None,
    num_frames: int,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Every frame, enlarged, over the curve as far as it is known by then."""
    strip: Strip | None = None
    for row, frame in enumerate(frames):
        picture = enlarged(frame)
        strip = strip or draw_strip(rows, surprise, p, num_frames, picture.shape[1])
        yield np.concatenate([picture, strip.after(int(np.searchsorted(rows, row, side="right")))])


def enlarged(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A small frame's pixels as squares, on white where it is too narrow for a curve beneath."""
    times = max(1, -(-SIDE // max(frame.shape[:2])))
    large = frame.repeat(times, axis=0).repeat(times, axis=1)
    missing = max(0, SIDE - large.shape[1])
    sides = (missing // 2, missing - missing // 2)
    return np.pad(large, ((0, 0), sides, (0, 0)), constant_values=255)


@dataclass(frozen=True)
class Strip:
    """The panel under the frames, drawn once pale and once in full, and where each step's point lies in it."""

    pale: UInt8[np.ndarray, "h w 3"]
    full: UInt8[np.ndarray, "h w 3"]
    points: Float[np.ndarray, "i 2"]  # x and y in pixels, from the upper left
    rare: Bool[np.ndarray, " i"]  # steps with a small p-value
    rows: slice  # of pixels, between the upper end of the axes and the lower

    def after(self, known: int) -> UInt8[np.ndarray, "h w 3"]:
        """The panel once `known` steps are known: these in full, the others pale, a marker at the last of them."""
        panel = self.pale.copy()
        if known > 0:
            x, y = self.points[known - 1]
            now = round(float(x))
            panel[:, : now + 1] = self.full[:, : now + 1]
            panel[self.rows, now] = rgb(GREY)
            put_disc(panel, x, y, RADIUS + 2, "#FFFFFF")
            put_disc(panel, x, y, RADIUS, RED if self.rare[known - 1] else BLUE)
        return panel


def put_disc(panel: UInt8[np.ndarray, "h w 3"], x: float, y: float, radius: float, colour: str) -> None:
    """Paint a disc with smooth edges."""
    rows, columns = np.ogrid[: panel.shape[0], : panel.shape[1]]
    cover = np.clip(radius + 0.5 - np.hypot(rows - y, columns - x), 0, 1)[..., None]
    panel[...] = np.round(panel * (1 - cover) + rgb(colour) * cover)


def rgb(colour: str) -> Int[np.ndarray, " 3"]:
    """The numbers of "#RRGGBB"."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def draw_strip(
    rows: Int[np.ndarray, " i"], surprise: Surprises, p: Surprises | None, num_frames: int, width: int
) -> Strip:
    """Surprise over the frame in which it is seen; steps with small p-values are marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rare = np.zeros(len(rows), dtype=bool) if p is None else p <= ALARM
    images = []
    with styled():
        figure = new_figure(width / DPI, STRIP / DPI)
        figure.set_dpi(DPI)
        canvas, ax = FigureCanvasAgg(figure), figure.subplots()
        drawn = draw_curve(ax, rows, surprise, rare, num_frames)
        for opacity in (PALE, 1.0):
            for artist in drawn:
                artist.set_alpha(opacity)
            canvas.draw()
            images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
            images[-1][0] = rgb(BORDER)  # a frame that is white as well ends here
        height = len(images[0])
        x, y = ax.transData.transform(np.stack([rows, surprise], axis=1)).T
        inside = slice(round(height - ax.bbox.y1), round(height - ax.bbox.y0))
    return Strip(images[0], images[1], np.stack([x, height - 1 - y], axis=1), rare, inside)


def draw_curve(
    ax: Axes, rows: Int[np.ndarray, " i"], surprise: Surprises, rare: Bool[np.ndarray, " i"], num_frames: int
) -> list[Any]:
    """The curve, and marks of small p-values; returns what is pale before it is known."""
    from matplotlib.ticker import MaxNLocator

    drawn: list[Any] = [*ax.plot(rows, surprise, color=BLUE, marker="o", ms=2.5 if len(rows) <= 60 else 0)]
    if rare.any():
        look: dict[str, Any] = {"marker": "o", "ms": 7, "mfc": "none", "mec": RED, "mew": 1.6, "ls": ""}
        drawn += ax.plot(rows[rare], surprise[rare], **look)
        drawn.append(ax.vlines(rows[rare], 0, 1, transform=ax.get_xaxis_transform(), color=RED, lw=1, ls=":"))
        handles = [proxy(f"p ≤ {ALARM}", **look)]
        ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 0.96), borderpad=0, handletextpad=0)
    low, high = min(0.0, float(surprise.min())), float(surprise.max())
    space = 0.12 * (high - low) or 1.0
    ax.set(xlabel="frame", ylabel="surprise", xlim=(0, num_frames - 1), ylim=(low - space * (low < 0), high + space))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.tick_params(length=0, labelcolor=GREY)
    return drawn

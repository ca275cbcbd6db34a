"""Files of clips (see `lewm.datasets.clip_writer`), read as trials of violation of expectation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from lewm.datasets.hdf5 import HDF5_RAISES, check_size, first_line, said_of
from lewm.datasets.violation import PLAIN, Clip, Nature
from lewm.datasets.windows import action_blocks, clip_rows, frame_rows
from lewm.errors import UserError
from lewm.probes.results import sha256
from lewm.probes.trials import Trial, Trials, Version, event_step

COLUMNS = ("pixels", "action", "perturb_step", "kind")
CLASSIC: dict[str, Nature] = {"visual": "visual", "physical": "physical"}  # kinds of files that tell no natures


def is_clip_file(path: str | Path) -> bool:
    """Whether a file holds clips with events rather than episodes."""
    if not Path(path).is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return "perturb_step" in file
    except HDF5_RAISES:
        return False  # not HDF5, or damaged: whoever reads it as a data set says so


def read_clip_file(path: str | Path, frameskip: int, max_clips: int) -> Trials:
    """The first `max_clips` trials of a file, subsampled; frames are read one trial at a time, whenever it is iterated.

    A version is absent where the file says that nothing happens, and where nothing is left of the event after
    subsampling: its frames and actions are those of the undisturbed clip.
    """
    path = Path(path)
    with _opened(path) as file, said_of(path):
        found = _datasets(file, path)
        kinds = _words(found["kind"], path)
        _check_shapes(found, kinds, path)
        natures = _natures(found, kinds, path)
        n, v, rows = found["pixels"].shape[:3]
        if (rows - 1) // frameskip < 1:
            raise UserError(f"clips of {rows} frames in {path} are too short for frameskip {frameskip}: it takes 2")
        happens = np.asarray(found["happens"][:], bool) if "happens" in found else np.ones((n, v), bool)
        events = found["perturb_step"][:].astype(np.int64)
        each = _Each(
            path=path,
            kinds=tuple(kinds),
            natures=natures,
            frameskip=frameskip,
            rows=rows,
            actions=_numbers(found["action"][:max_clips]),
            events=(events if events.ndim == 2 else np.repeat(events[:, None], v, axis=1))[:max_clips],
            happens=happens[:max_clips],
        )
    each.check()
    return Trials(natures=natures, each=each, fingerprint=sha256(path), what="clips of a file", split="all")


@dataclass(frozen=True, kw_only=True)
class _Each:
    """The trials of a file, read anew by every loop over them."""

    path: Path
    kinds: tuple[str, ...]
    natures: dict[str, Nature]
    frameskip: int
    rows: int  # frames of a clip in the file
    actions: Float32[np.ndarray, "n v t a"]
    events: Int64[np.ndarray, "n v"]
    happens: Bool[np.ndarray, "n v"]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Trial]:
        with _opened(self.path) as file:
            pixels = file["pixels"]
            assert isinstance(pixels, h5py.Dataset)
            for i in range(len(self)):
                yield self._trial(i, pixels)

    @property
    def num_frames(self) -> int:
        """Of a subsampled clip."""
        return (self.rows - 1) // self.frameskip + 1

    @property
    def used(self) -> int:
        """Actions that lead to a frame that is kept; the last one of a file leads nowhere, and may be NaN."""
        return clip_rows(self.num_frames, self.frameskip) - 1

    def check(self) -> None:
        """UserError where actions or events, which are small and here already, are not as they must be."""
        for i, j in np.argwhere(~np.isfinite(self.actions[:, :, : self.used]).all(axis=(2, 3)))[:1]:
            raise UserError(f"{self._place(i, j)}: actions are not finite; mend the file or leave this trial out")
        outside = self._happening() & ((self.events < 1) | (self.events >= self.rows))
        for i, j in np.argwhere(outside)[:1]:
            raise UserError(
                f"{self._place(i, j)}: perturb_step {self.events[i, j]} is outside the clip, whose {self.rows} frames "
                f"can show events of frames 1 to {self.rows - 1}; mend it, or write `happens` False there"
            )
        if not (self._happening() & (self.events <= self.used)).any():
            raise UserError(
                f"no event of {self.path} is seen at frameskip {self.frameskip}, which keeps {self.num_frames} of "
                f"{self.rows} frames; write clips that go on for longer after their events"
            )

    def _happening(self) -> Bool[np.ndarray, "n v"]:
        return self.happens & (np.array(self.kinds) != PLAIN)

    def _trial(self, i: int, pixels: h5py.Dataset) -> Trial:
        plain = self.kinds.index(PLAIN)
        frames = self._frames(i, plain, pixels)
        shown, versions = self._clip(i, plain, frames), {}
        for kind in self.natures:
            j = self.kinds.index(kind)
            if self.happens[i, j]:
                own = self._frames(i, j, pixels)  # one clip at a time: all of a trial are several times larger
                self._check_before(i, j, own, frames)
                version = self._version(i, j, own, shown)
                versions |= {kind: version} if version else {}
        return Trial(shown, versions, group=i)

    def _frames(self, i: int, j: int, pixels: h5py.Dataset) -> UInt8[np.ndarray, "t h w c"]:
        try:
            return pixels[i, j]
        except HDF5_RAISES as error:
            raise UserError(
                f"{self._place(i)}: frames cannot be read ({first_line(error)}); restore the file"
            ) from error

    def _check_before(self, i: int, j: int, frames: np.ndarray, plain: np.ndarray) -> None:
        """UserError where a version differs from the plain clip before its event."""
        event, plain_actions = self.events[i, j], self.actions[i, self.kinds.index(PLAIN)]
        # Action t leads from frame t to frame t + 1: the one that leads into the event may be part of it.
        before = min(event - 1, self.used)
        for what, differs in (
            ("frame", (frames[:event] != plain[:event]).any(axis=(1, 2, 3))),
            ("action", (self.actions[i, j, :before] != plain_actions[:before]).any(axis=1)),
        ):
            if differs.any():
                raise UserError(
                    f"{self._place(i, j)}: {what} {differs.argmax()} differs from that of the {PLAIN} clip, before "
                    f"perturb_step {event}; versions must be equal before the event: write the clips again"
                )

    def _version(self, i: int, j: int, frames: np.ndarray, plain: Clip) -> Version | None:
        """None where nothing is left of the event."""
        own = self._clip(i, j, frames)
        if np.array_equal(own.pixels, plain.pixels) and np.array_equal(own.actions, plain.actions):
            return None
        return Version(own, event_step(int(self.events[i, j]), self.frameskip, self.num_frames))

    def _clip(self, i: int, j: int, frames: np.ndarray) -> Clip:
        kept = frame_rows(0, self.num_frames, self.frameskip)
        return Clip(frames[kept], action_blocks(self.actions[i, j], 0, self.num_frames, self.frameskip))

    def _place(self, i: int, j: int | None = None) -> str:
        return f"{self.path}, trial {i}" + ("" if j is None else f", kind {self.kinds[j]!r}")


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except HDF5_RAISES as error:
        raise UserError(f"not a readable HDF5 file: {path} ({first_line(error)})") from error


def _datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """All data sets at the top; UserError where one of `COLUMNS` is not among them."""
    found = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserError(f"no data set {missing[0]!r} in {path}; a file of clips has: {', '.join(COLUMNS)}")
    for name, dataset in found.items():
        check_size(dataset, f"`{name}` of {path}")
    return found


def _words(dataset: h5py.Dataset, path: Path) -> list[str]:
    words = dataset[:].tolist() if dataset.ndim == 1 else []
    if not words or not all(isinstance(word, (str, bytes)) for word in words):
        name = (dataset.name or "").strip("/")
        raise UserError(f"`{name}` of {path} must be words (v,); it is {dataset.dtype} {dataset.shape}")
    return [str(word, "utf-8") if isinstance(word, bytes) else word for word in words]


def _check_shapes(found: dict[str, h5py.Dataset], kinds: list[str], path: Path) -> None:
    pixels, actions, events = (found[name] for name in COLUMNS[:3])
    fit = pixels.ndim == 6 and actions.ndim == 4 and pixels.shape[:3] == actions.shape[:3]
    if pixels.dtype != np.uint8 or actions.dtype.kind not in "fiu" or not fit:
        raise UserError(
            f"{path}: pixels must be uint8 (n, v, t, h, w, c) and action numbers (n, v, t, a); "
            f"they are {pixels.dtype} {pixels.shape} and {actions.dtype} {actions.shape}"
        )
    n, v = pixels.shape[:2]
    if 0 in pixels.shape:
        raise UserError(f"{path} holds no clips: pixels are {pixels.shape}")
    if len(kinds) != v or len(set(kinds)) != v:
        raise UserError(f"{path} has {v} versions of a clip and kinds {', '.join(kinds)}; name each, each once")
    if PLAIN not in kinds or v == 1:
        raise UserError(f"{path} has kinds {', '.join(kinds)}; needed are {PLAIN} and at least one kind of event")
    if events.dtype.kind not in "iu" or events.shape not in ((n,), (n, v)):
        raise UserError(
            f"{path} has {n} clips of {v} kinds and perturb_step {events.dtype} {events.shape}; it must be whole "
            f"numbers, ({n},) or ({n}, {v})"
        )
    if "happens" in found and (found["happens"].shape != (n, v) or found["happens"].dtype.kind not in "biu"):
        happens = found["happens"]
        raise UserError(f"`happens` of {path} must be booleans ({n}, {v}); it is {happens.dtype} {happens.shape}")


def _natures(found: dict[str, h5py.Dataset], kinds: list[str], path: Path) -> dict[str, Nature]:
    """The nature of each kind but the plain one: in the file's order, or of a file of triples in `CLASSIC`'s."""
    if "nature" in found:
        words = _words(found["nature"], path)
        if len(words) != len(kinds):
            raise UserError(
                f"`nature` of {path} has {len(words)} words for {len(kinds)} kinds; it must have one for each"
            )
        told: dict[str, Any] = dict(zip(kinds, words, strict=True))
    else:
        told = {kind: nature for kind, nature in CLASSIC.items() if kind in kinds}
    for kind in kinds:
        if kind != PLAIN and told.get(kind) not in ("visual", "physical"):
            raise UserError(
                f"{path} says of kind {kind!r} nature {told.get(kind)!r}; `nature` (v,) must say visual or physical"
            )
    return {kind: nature for kind, nature in told.items() if kind != PLAIN}


def _numbers(actions: np.ndarray) -> Float32[np.ndarray, "n v t a"]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return actions.astype(np.float32)

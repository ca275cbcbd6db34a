"""LeRobot's data sets, versions 2 and 3: parquet tables, pictures as videos or inside the tables, `meta/`.

In version 2 each episode has files of its own; in version 3 a file holds many, and `meta/episodes` says from which row
and which second on. Frames of a video are found by their time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lewm.datasets.foreign import as_frames
from lewm.datasets.schema import Column
from lewm.datasets.video import AV_RAISES, require_av
from lewm.errors import UserError

ABOUT = "meta/info.json"
COUNTED = ("index", "episode_index", "frame_index")  # what the tables number, and we do again
NEAR = 0.5  # of the time between two frames: how far a frame's own time may be from where it should be


class Episode(NamedTuple):
    """Where an episode lies."""

    number: int
    length: int
    table: Path
    videos: dict[str, tuple[Path, float]]  # of each camera, the file and the second at which it begins


def recognises(path: Path) -> bool:
    """Whether a folder says of itself that it is LeRobot's."""
    return (path / ABOUT).is_file()


class Reader:
    """See `foreign.Reader`."""

    def __init__(self, path: Path) -> None:
        self.path, about = path, _json(path / ABOUT)
        version = str(about.get("codebase_version", ""))
        if not version.startswith(("v2", "v3")):
            raise UserError(f"{path} is of LeRobot's version {version or 'unknown'}; v2 and v3 are read")
        try:
            self.fps: float | None = float(about["fps"])
            features = dict(about["features"])
            episodes = list((_episodes_v2 if version.startswith("v2") else _episodes_v3)(path, about, features))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"{path / ABOUT} or a table beside it lacks {error}; the data set is damaged") from error
        if not episodes:
            raise UserError(f"{path} holds no episodes")
        self._episodes = episodes
        self.lengths = np.array([one.length for one in episodes], dtype=np.int64)
        self.keys = [f"{path.name}:{one.number}" for one in episodes]
        self._kinds = {name: about["dtype"] for name, about in features.items()}
        self.columns = {
            name: Column(_dtype(about["dtype"]), _shape(about["shape"]))
            for name, about in features.items()
            if about["dtype"] not in ("video", "image", "string") and name not in COUNTED
        }
        self.actions = ("action",) if "action" in self.columns else ()
        self._kept: tuple[tuple[str, int], np.ndarray] | None = None  # the last episode that was decoded
        self._table: tuple[Path, Any] | None = None
        self.cameras = {name: self._size(name) for name, kind in self._kinds.items() if kind in ("video", "image")}
        self.lossy = "video" if "video" in self._kinds.values() else None

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if self._kept is None or self._kept[0] != (camera, episode):
            read = self._film if self._kinds[camera] == "video" else self._pictures
            self._kept = (camera, episode), read(camera, self._episodes[episode])
        return self._kept[1][rows]

    def column(self, name: str, episode: int) -> np.ndarray:
        one, column = self._episodes[episode], self.columns[name]
        values = self._rows(one).column(name).to_pylist()
        try:
            return np.array(values, dtype=column.dtype).reshape(one.length, *column.shape)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{name!r} of episode {one.number} in {one.table} is not {column.dtype} of shape {column.shape}"
            ) from error

    def _rows(self, one: Episode) -> Any:
        """The episode's rows of its table, in their order."""
        if self._table is None or self._table[0] != one.table:
            self._table = one.table, _parquet(one.table)
        table = self._table[1]
        mine = np.flatnonzero(table.column("episode_index").to_numpy() == one.number)
        found = table.take(mine)
        order = found.column("frame_index").to_numpy()
        if len(mine) != one.length or not np.array_equal(order, np.arange(one.length)):
            raise UserError(
                f"{one.table} has {len(mine)} rows of episode {one.number}, {ABOUT} and what stands beside it say "
                f"{one.length}: the data set is damaged"
            )
        return found

    def _pictures(self, camera: str, one: Episode) -> np.ndarray:
        where = f"frames {camera!r} of episode {one.number} in {one.table}"
        try:
            stored = [row["bytes"] for row in self._rows(one).column(camera).to_pylist()]
            images = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in stored]
        except (UnidentifiedImageError, OSError, TypeError, KeyError) as error:
            raise UserError(f"{where}: not readable pictures ({error})") from error
        return as_frames(np.stack(images), where)

    def _film(self, camera: str, one: Episode) -> np.ndarray:
        path, begins = one.videos[camera]
        frames: list[np.ndarray | None] = [None] * one.length
        assert self.fps is not None
        for second, image in _decoded(path, begins - NEAR / self.fps):
            at = (second - begins) * self.fps
            row = round(at)
            if row >= one.length:
                break
            if row >= 0 and abs(at - row) < NEAR:
                frames[row] = image
        lost = [row for row, image in enumerate(frames) if image is None]
        if lost:
            raise UserError(
                f"{path} has no frame for {len(lost)} of {one.length} rows of episode {one.number}, the first at "
                f"{begins + lost[0] / self.fps:.3f} s: video and table do not belong together, or one is damaged"
            )
        return np.stack([image for image in frames if image is not None])

    def _size(self, camera: str) -> tuple[int, int, int]:
        h, w, c = self.frames(camera, 0, np.array([0])).shape[1:]
        return h, w, c


def _episodes_v2(path: Path, about: dict[str, Any], features: dict[str, Any]) -> Iterator[Episode]:
    listed = path / "meta" / "episodes.jsonl"
    try:
        lines = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"not a readable list of episodes: {listed} ({error})") from error
    cameras = [name for name, feature in features.items() if feature["dtype"] == "video"]
    for line in lines:
        number = int(line["episode_index"])
        place = {"episode_chunk": number // int(about["chunks_size"]), "episode_index": number}
        videos = {n: (path / about["video_path"].format(video_key=n, **place), 0.0) for n in cameras}
        yield Episode(number, int(line["length"]), path / about["data_path"].format(**place), videos)


def _episodes_v3(path: Path, about: dict[str, Any], features: dict[str, Any]) -> Iterator[Episode]:
    cameras = [name for name, feature in features.items() if feature["dtype"] == "video"]
    for file in sorted((path / "meta" / "episodes").glob("*/*.parquet")):
        for row in _parquet(file, drop="stats/").to_pylist():
            videos = {}
            for name in cameras:
                place = {key: row[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index")}
                video = path / about["video_path"].format(video_key=name, **place)
                videos[name] = video, float(row[f"videos/{name}/from_timestamp"])
            place = {key: row[f"data/{key}"] for key in ("chunk_index", "file_index")}
            table = path / about["data_path"].format(**place)
            yield Episode(int(row["episode_index"]), int(row["length"]), table, videos)


def _parquet(path: Path, drop: str = "") -> Any:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("LeRobot's tables are read with pyarrow: pip install 'lewm[lerobot]'") from error
    try:
        names = parquet.read_schema(path).names
        return parquet.read_table(path, columns=[n for n in names if not drop or not n.startswith(drop)])
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"not a readable parquet file: {path} ({next(iter(str(error).splitlines()), '')})") from error


def _decoded(path: Path, second: float) -> Iterator[tuple[float, np.ndarray]]:
    """Time and frame (h, w, 3) of all frames from the key frame before a second on."""
    av = require_av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if second > 0:
                container.seek(int(second / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                yield float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24")
    except AV_RAISES as error:
        raise UserError(f"not a readable video: {path} ({next(iter(str(error).splitlines()), '')})") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"not readable JSON: {path} ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"not a table of settings: {path}")
    return found


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError as error:
        raise UserError(f"a column is of type {name!r}, which is not read") from error


def _shape(shape: list[int]) -> tuple[int, ...]:
    return () if list(shape) == [1] else tuple(int(n) for n in shape)

"""LeRobot's data sets, versions 2 and 3: parquet tables, pictures as videos or inside the tables, `meta/`.

In version 2 each episode has files of its own; in version 3 a file holds many, and `meta/episodes` says from which row
and which second on. Frames of a video are found by their time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lewm.datasets.film import timed_frames
from lewm.datasets.hdf5 import first_line
from lewm.datasets.pictures import decode_pictures
from lewm.datasets.schema import Column
from lewm.errors import UserError

ABOUT = "meta/info.json"
COUNTED = ("index", "episode_index", "frame_index")  # what the tables number, and we do again
PICTURES = ("video", "image")
NEAR = 0.25  # of the time between two frames: how far a frame's own time may be from its row's


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
        if not version.startswith(("v2.", "v3.")):
            raise UserError(
                f"{path} is of LeRobot's version {version or 'unknown'}; v2 and v3 are read: convert it with LeRobot"
            )
        try:
            self._fps = self.fps = float(about["fps"])
            self._kinds = {str(name): str(feature["dtype"]) for name, feature in about["features"].items()}
            films = [name for name, kind in self._kinds.items() if kind == "video"]
            self._episodes = list((_episodes_v2 if version.startswith("v2") else _episodes_v3)(path, about, films))
            self.columns = {
                name: Column(np.dtype(kind), _shape(about["features"][name]["shape"]))
                for name, kind in self._kinds.items()
                if name not in COUNTED and kind not in (*PICTURES, "string")
            }
            told = int(about["total_episodes"]), int(about["total_frames"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"{path / ABOUT} or a table beside it lacks {error}; the data set is damaged") from error
        self.lengths = np.array([one.length for one in self._episodes], dtype=np.int64)
        if told != (len(self.lengths), self.lengths.sum()):
            raise UserError(
                f"{path} lists {len(self.lengths)} episodes of {self.lengths.sum()} frames, {ABOUT} says {told[0]} of "
                f"{told[1]}; copy it again"
            )
        self.keys = [f"{path.name}:{one.number}" for one in self._episodes]
        self.actions = ("action",) if "action" in self.columns else ()
        self.lossy = {camera: "video" for camera in films}
        self._kept: tuple[tuple[str, int], np.ndarray] | None = None  # the last episode that was decoded
        self._table: tuple[Path, Any] | None = None
        self.cameras = [name for name, kind in self._kinds.items() if kind in PICTURES]

    def frames(self, camera: str, episode: int, rows: np.ndarray) -> np.ndarray:
        if self._kept is None or self._kept[0] != (camera, episode):
            read = self._film if self._kinds[camera] == "video" else self._pictures
            self._kept = (camera, episode), read(camera, self._episodes[episode])
        return self._kept[1][rows]

    def column(self, name: str, episode: int) -> np.ndarray:
        one, column = self._episodes[episode], self.columns[name]
        values = self._rows(one, name).to_pylist()
        try:
            return np.array(values, dtype=column.dtype).reshape(one.length, *column.shape)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{name!r} of episode {one.number} in {one.table} is not {column.dtype} of shape {column.shape}; the "
                "data set is damaged"
            ) from error

    def _rows(self, one: Episode, name: str) -> Any:
        """A column of the episode's table, once its rows are known to be whole and in order."""
        if self._table is None or self._table[0] != one.table:
            self._table = one.table, _parquet(one.table)
        try:
            table = self._table[1]
            mine = table.take(np.flatnonzero(table.column("episode_index").to_numpy() == one.number))
            order, found = mine.column("frame_index").to_numpy(), mine.column(name)
        except KeyError as error:
            raise UserError(f"{one.table} has no column {error}; the data set is damaged") from error
        if not np.array_equal(order, np.arange(one.length)):
            raise UserError(
                f"{one.table} has {len(order)} rows of episode {one.number}, the list of episodes says "
                f"{one.length}, in their order: the data set is damaged"
            )
        return found

    def _pictures(self, camera: str, one: Episode) -> np.ndarray:
        stored = [(row or {}).get("bytes") or b"" for row in self._rows(one, camera).to_pylist()]
        if b"" in stored:
            raise UserError(f"row {stored.index(b'')} of episode {one.number} in {one.table} has no {camera!r}")
        return decode_pictures(stored, f"{camera!r} of episode {one.number} in {one.table}")

    def _film(self, camera: str, one: Episode) -> np.ndarray:
        """Frames of the video by their times, each the nearest to its row's."""
        path, begins = one.videos[camera]
        self._check_times(one)
        off = np.full(one.length, NEAR)
        frames: list[np.ndarray | None] = [None] * one.length
        for second, image in timed_frames(path, begins - NEAR / self._fps):
            at = (second - begins) * self._fps
            row = round(at)
            if row >= one.length:
                break
            if row >= 0 and abs(at - row) < off[row]:
                frames[row], off[row] = image, abs(at - row)
        found = [image for image in frames if image is not None]
        if len(found) < one.length:
            lost = next(row for row, image in enumerate(frames) if image is None)
            raise UserError(
                f"{path} has no frame for {one.length - len(found)} of {one.length} rows of episode {one.number}, the "
                f"first at {begins + lost / self._fps:.3f} s: video and table do not belong together, or one is damaged"
            )
        return np.stack(found)

    def _check_times(self, one: Episode) -> None:
        """UserError unless the rows' own times are those that their numbers and the frame rate give."""
        times = self._rows(one, "timestamp").to_numpy().astype(np.float64)
        off = np.abs(times * self._fps - np.arange(one.length))
        if not (off < NEAR).all():
            row = int(np.argmax(~(off < NEAR)))
            raise UserError(
                f"row {row} of episode {one.number} in {one.table} is at {times[row]:.3f} s, {self._fps:g} frames a "
                f"second put it at {row / self._fps:.3f} s; such a set is not read"
            )


def _episodes_v2(path: Path, about: dict[str, Any], films: list[str]) -> Iterator[Episode]:
    listed = path / "meta" / "episodes.jsonl"
    try:
        lines = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"not a readable list of episodes: {listed} ({first_line(error)})") from error
    for line in lines:
        number = int(line["episode_index"])
        place = {"episode_chunk": number // int(about["chunks_size"]), "episode_index": number}
        videos = {name: (path / about["video_path"].format(video_key=name, **place), 0.0) for name in films}
        yield Episode(number, int(line["length"]), path / about["data_path"].format(**place), videos)


def _episodes_v3(path: Path, about: dict[str, Any], films: list[str]) -> Iterator[Episode]:
    for file in sorted((path / "meta" / "episodes").glob("*/*.parquet")):
        for row in _parquet(file, drop="stats/").to_pylist():
            number, length, videos = int(row["episode_index"]), int(row["length"]), {}
            for name in films:
                place = {key: row[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index")}
                begins, ends = (float(row[f"videos/{name}/{key}_timestamp"]) for key in ("from", "to"))
                if abs((ends - begins) * float(about["fps"]) - length) > 2 * NEAR:
                    raise UserError(
                        f"episode {number} in {file} has {length} rows at {about['fps']} a second, and "
                        f"{ends - begins:.3f} s of {name!r}; the data set is damaged"
                    )
                videos[name] = path / about["video_path"].format(video_key=name, **place), begins
            place = {key: row[f"data/{key}"] for key in ("chunk_index", "file_index")}
            yield Episode(number, length, path / about["data_path"].format(**place), videos)


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
        raise UserError(f"not a readable parquet file: {path} ({first_line(error)}); copy it again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"not readable JSON: {path} ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise UserError(f"not a table of settings: {path}; the data set is damaged")
    return found


def _shape(shape: list[int]) -> tuple[int, ...]:
    return () if list(shape) == [1] else tuple(int(n) for n in shape)
